"""Writes the difference between what is and what a plan says should be.

Each write stands alone: one that fails is tried again later, with growing pauses, and holds up no other. Nothing is
remembered that matters: after a kill between any two writes the next plan has the rest.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from hairpin.errors import HairpinError
from hairpin.kubernetes.errors import ApiConflictError, ApiNotFoundError, ApiUnreachableError
from hairpin.kubernetes.kinds import ENVOY_FILTERS, SESSIONS
from hairpin.model.session_json import status_to_json
from xds_server.delivery.istio.world import Plan, World, changed_statuses
from xds_server.sources.kubernetes.informer import Backoff

if TYPE_CHECKING:
    from hairpin.certificates import CertificateAuthority
    from hairpin.kubernetes.api import Api, JsonObject
    from hairpin.kubernetes.kinds import Kind
    from hairpin.model.session import SessionStatus
    from xds_server.model.cluster import Key, SessionFacts

log = logging.getLogger(__name__)

MANAGER = "hairpin-controller"
"""Whose fields in what is delivered are ours."""
CERTIFICATE_LIFETIME = timedelta(minutes=10)
WRITE_SECONDS = 10.0
"""A write that takes longer is given up, so that a plan does not grow old while it is carried out."""

LASTING = 3
"""Attempts that the API server answered after which a failure is told to the sessions' owners: about a second."""

AWAY_SECONDS = 2.0
"""The longest pause while the API server is away: laptops that are back wait for what is written then."""
_AT_ONCE = 16
"""Writes of sessions that are under way at a time."""
_CONFLICT_DELAY = 0.05
"""Seconds until a write that another overtook is tried again: the watch has the newer object by then."""


@dataclass(slots=True)
class _Failure:
    backoff: Backoff = field(default_factory=lambda: Backoff(0.2, 30.0))
    not_before: float = 0.0
    problem: str = ""
    refusal: str = ""
    """The last that the API server itself had to say."""
    times: int = 0
    """How often it did."""


class Executor:
    """Carries plans out.

    Args:
        api: the API server.
        authority: signs sessions' certificates.
        note: is given each object as the API server answered it, so that the next plan knows of it.
        delivered: the kind of object that the mesh's delivery writes.
    """

    def __init__(
        self,
        api: Api,
        authority: CertificateAuthority,
        note: Callable[[str, JsonObject], None],
        delivered: Kind = ENVOY_FILTERS,
    ) -> None:
        self._api = api
        self._authority = authority
        self._note = note
        self._delivered = delivered
        self._failures: dict[tuple[str, Key], _Failure] = {}

    @property
    def problems(self) -> dict[str, str]:
        """What could not be written when it was tried last, and why."""
        return {f"{verb} {key}": failure.problem for (verb, key), failure in self._failures.items() if failure.problem}

    @property
    def unwritten(self) -> dict[Key, str]:
        """The objects of the delivery that the API server has let nobody write several times in a row, and why."""
        return {
            key: failure.refusal
            for (verb, key), failure in self._failures.items()
            if verb == self._delivered.name and failure.times >= LASTING
        }

    async def execute(self, world: World, plan: Plan, now: datetime) -> float | None:
        """Write what is different.

        Returns:
            in how many seconds something that failed is to be tried again; None if nothing did.
        """
        sessions = {session.key: session for session in world.sessions}
        self._forget(plan, sessions.keys())
        statuses = changed_statuses(world, plan)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def status(key: Key) -> None:
            async with slots:
                await self._try("status of", key, lambda: self._write_status(sessions[key], statuses[key], plan, now))

        async def end(key: Key) -> None:
            async with slots:
                await self._try("end of", key, lambda: self._end(sessions[key], plan.end[key]))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_filters(plan))
            for key in statuses:
                if key not in plan.end:
                    tasks.create_task(status(key))
            for key in plan.end:
                tasks.create_task(end(key))
        return min(
            (max(failure.not_before - time.monotonic(), 0.0) for failure in self._failures.values()), default=None
        )

    async def _write_filters(self, plan: Plan) -> None:
        """In the plan's order: sessions before the plumbing that looks for them."""
        for key, document in plan.apply.items():
            await self._try(self._delivered.name, key, partial(self._apply, key, document))
        for key in plan.delete:
            await self._try(f"end of {self._delivered.name}", key, partial(self._delete, key))

    async def _apply(self, key: Key, document: JsonObject) -> None:
        written = await self._api.apply(self._delivered, document, manager=MANAGER)
        log.info("%s %s is written", self._delivered.name, key)
        self._note(key.namespace, written)

    async def _delete(self, key: Key) -> None:
        await self._api.delete(self._delivered, key.name, namespace=key.namespace)
        log.info("%s %s is deleted", self._delivered.name, key)

    async def _write_status(self, session: SessionFacts, status: SessionStatus, plan: Plan, now: datetime) -> None:
        key = session.key
        if key in plan.certify:
            status = self._certified(session, status, now)
        document = {
            "apiVersion": SESSIONS.api_version,
            "kind": SESSIONS.name,
            # The version: a status is about the spec that it was worked out from.
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "uid": session.uid,
                "resourceVersion": session.resource_version,
            },
            "status": status_to_json(status),
        }
        self._note(key.namespace, await self._api.replace(SESSIONS, document, subresource="status"))
        if status.phase is not session.status.phase or not session.status.id:
            log.info("session %s: %s", key, status.phase)

    def _certified(self, session: SessionFacts, status: SessionStatus, now: datetime) -> SessionStatus:
        request = session.spec.certificate_request if session.spec else ""
        certificate = self._authority.sign(
            request, dns=(status.id,), lifetime=CERTIFICATE_LIFETIME, now=now, field="spec.certificateRequest"
        )
        return dataclasses.replace(
            status, certificate=certificate.chain, certificate_authority=self._authority.certificate
        )

    async def _end(self, session: SessionFacts, reason: str) -> None:
        key = session.key
        await self._api.delete(SESSIONS, key.name, namespace=key.namespace, uid=session.uid)
        log.info("session %s ended: %s", key, reason)

    async def _try(self, what: str, key: Key, write: Callable[[], Awaitable[None]]) -> None:
        failure = self._failures.get((what, key))
        if failure is not None and time.monotonic() < failure.not_before:
            return
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await write()
        except ApiNotFoundError as error:
            # A session that ended meanwhile; or no such kind, and then it is as with any failure.
            self._fail(what, key, error)
        except ApiConflictError:
            self._failures[what, key] = _Failure(not_before=time.monotonic() + _CONFLICT_DELAY)
        except (HairpinError, TimeoutError) as error:
            self._fail(what, key, error)
        else:
            self._failures.pop((what, key), None)

    def _fail(self, what: str, key: Key, error: Exception) -> None:
        failure = self._failures.setdefault((what, key), _Failure())
        problem = str(error) or "no answer in time"
        pause = failure.backoff.next()
        if isinstance(error, ApiUnreachableError):  # nothing that a session's owner could have mended
            pause = min(pause, AWAY_SECONDS)
        else:
            failure.times += 1
            failure.refusal = problem
        failure.not_before = time.monotonic() + pause
        if problem != failure.problem:
            failure.problem = problem
            log.warning("the %s %s can't be written: %s", what, key, problem)

    def _forget(self, plan: Plan, sessions: Iterable[Key]) -> None:
        """Failures of what is no longer wanted."""
        wanted: dict[str, Any] = {
            "status of": set(sessions),
            "end of": plan.end.keys(),
            self._delivered.name: plan.apply.keys(),
            f"end of {self._delivered.name}": set(plan.delete),
        }
        for what, key in [entry for entry in self._failures if entry[1] not in wanted[entry[0]]]:
            del self._failures[what, key]
