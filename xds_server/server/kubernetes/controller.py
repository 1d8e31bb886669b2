"""The leader's loop: look, plan, write; again when something changed or time alone changes the plan."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from hairpin.errors import HairpinError
from hairpin.kubernetes.installation import AUTHORITY, AUTHORITY_KEY, metadata
from hairpin.kubernetes.kinds import CONFIG_MAPS
from xds_server.delivery.istio.objects import Renderer
from xds_server.delivery.istio.plan import plan
from xds_server.model.cluster import Key
from xds_server.server.kubernetes.executor import MANAGER
from xds_server.server.kubernetes.world import world_of
from xds_server.sources.kubernetes.informer import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hairpin.kubernetes.api import Api, JsonObject
    from hairpin.model.match import Match
    from xds_server.delivery.istio.world import Plan, PlanSettings, World
    from xds_server.sources.kubernetes.agents import AgentReports
    from xds_server.sources.kubernetes.cluster import ClusterWatch

log = logging.getLogger(__name__)

_VALIDATIONS = 2
"""Envoys that validate matches at a time."""
_SOONEST = 0.02
"""Seconds between two plans of which only time is the reason."""


class Executes(Protocol):
    """Carries plans out."""

    @property
    def unwritten(self) -> Mapping[Key, str]:
        """The objects of the delivery that could not be written several times in a row, and why."""

    async def execute(self, world: World, plan: Plan, now: datetime) -> float | None:
        """Write what is different; returns in how many seconds to try again what failed."""


class Controller:
    """What the leader does.

    Args:
        api: the API server.
        cluster: the informers.
        reports: the agents' reports.
        settings: for plans.
        executor: writes.
        validate: raises a HairpinError for a match that Envoy would refuse.
    """

    def __init__(
        self,
        api: Api,
        cluster: ClusterWatch,
        reports: AgentReports,
        settings: PlanSettings,
        *,
        executor: Executes,
        validate: Callable[[Match], Awaitable[None]],
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._reports = reports
        self._settings = settings
        self._executor = executor
        self._validate = validate
        self._validating = asyncio.Semaphore(_VALIDATIONS)
        self._judged: dict[Match, str] = {}
        self._remarks: set[str] = set()
        self._backoffs: dict[str, tuple[Backoff, float]] = {}
        """Of the namespaces whose copy of the CA's certificate can't be written."""

    async def run(self) -> None:
        """Until cancelled: the lease is lost then, or the process ends."""
        since = datetime.now(UTC)
        changed = self._cluster.signal.subscribe()
        renderer, backoff = Renderer(), Backoff()
        under_way: set[Match] = set()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    changed.clear()
                    now = datetime.now(UTC)
                    self._reports.keep(lambda pod: self._cluster.pod(pod) is not None)
                    world = world_of(
                        self._cluster,
                        self._settings,
                        since,
                        reports=self._reports.tunnels,
                        versions=self._reports.versions,
                        judged=self._judged,
                        unwritten=self._executor.unwritten,
                    )
                    try:
                        what = plan(world, now, renderer)
                        backoff.reset()
                    except Exception:
                        # A bug: steering stays as it is, and agents are served on.
                        log.exception("no plan")
                        await asyncio.sleep(backoff.next())
                        continue
                    self._tell(what.remarks)
                    self._forget_verdicts(world)
                    for match in what.validate - under_way:
                        under_way.add(match)
                        tasks.create_task(self._judge(match, under_way))
                    retry = await self._executor.execute(world, what, now)
                    publish = await self._publish_authority()
                    await _wait(changed, what.next, retry, publish)
        finally:
            self._cluster.signal.unsubscribe(changed)

    async def _judge(self, match: Match, under_way: set[Match]) -> None:
        verdict = ""
        try:
            async with self._validating:
                await self._validate(match)
        except HairpinError as error:
            verdict = str(error)
        finally:
            under_way.discard(match)
        self._judged[match] = verdict
        self._cluster.signal.set()

    def _forget_verdicts(self, world: World) -> None:
        used = {session.spec.match for session in world.sessions if session.spec and session.spec.match}
        for match in self._judged.keys() - used:
            del self._judged[match]

    async def _publish_authority(self) -> float | None:
        """Each served namespace has the CA's certificate, for its agents; returns when to try again what failed."""
        retry = None
        for namespace, watch in self._cluster.namespaces.items():
            key = Key(namespace, AUTHORITY)
            if not watch.authority.synced or watch.authority.get(key) == self._settings.certificate_authority:
                self._backoffs.pop(namespace, None)
                continue
            now = asyncio.get_running_loop().time()
            backoff, not_before = self._backoffs.get(namespace, (Backoff(0.2, 30.0), 0.0))
            if now >= not_before:
                try:
                    watch.authority.note(await self._write_authority(namespace))
                    continue
                except HairpinError as error:
                    log.warning("the ConfigMap %s can't be written: %s", key, error)
                    not_before = now + backoff.next()
                    self._backoffs[namespace] = backoff, not_before
            retry = min(not_before - now, retry if retry is not None else not_before - now)
        return retry

    async def _write_authority(self, namespace: str) -> JsonObject:
        document = {
            "apiVersion": CONFIG_MAPS.api_version,
            "kind": CONFIG_MAPS.name,
            "metadata": metadata(AUTHORITY, namespace),
            "data": {AUTHORITY_KEY: self._settings.certificate_authority},
        }
        return await self._api.apply(CONFIG_MAPS, document, manager=MANAGER)

    def _tell(self, remarks: tuple[str, ...]) -> None:
        for remark in remarks:
            if remark not in self._remarks:
                log.warning("%s", remark)
        self._remarks = set(remarks)


async def _wait(changed: asyncio.Event, moment: datetime | None, *seconds: float | None) -> None:
    delays = [delay for delay in seconds if delay is not None]
    if moment is not None:
        delays.append((moment - datetime.now(UTC)).total_seconds())
    with contextlib.suppress(TimeoutError):
        # A moment's pause: what comes together is planned together; and time that is a hair too early makes no loop.
        await asyncio.sleep(0.005)
        async with asyncio.timeout(max(_SOONEST, min(delays)) if delays else None):
            await changed.wait()
