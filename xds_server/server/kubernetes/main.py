"""The controller as a process: informers, election, the leader's loop, and the two servers, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hairpin.errors import UnavailableError
from hairpin.kubernetes.api import connect
from hairpin.kubernetes.errors import ApiUnavailableError
from hairpin.kubernetes.kinds import DELIVERED
from xds_server.cache.snapshot_cache import SnapshotCache
from xds_server.delivery.istio.world import PlanSettings
from xds_server.delivery.validate import MatchValidator
from xds_server.model.cluster import Key
from xds_server.server.ads import AdsServer
from xds_server.server.credentials import ServerIdentity, server_credentials
from xds_server.server.kubernetes.agents_api import AgentsApi
from xds_server.server.kubernetes.authority import load_authority, server_certificate, server_names
from xds_server.server.kubernetes.controller import Controller, Executes
from xds_server.server.kubernetes.egress import Egress
from xds_server.server.kubernetes.executor import Executor
from xds_server.server.kubernetes.leader import Election
from xds_server.server.kubernetes.settings import Settings, read_settings
from xds_server.server.registry import ProxyRegistry
from xds_server.server.tls import server_tls, write_certificate
from xds_server.sources.kubernetes.agents import AgentReports, TokenReviewer
from xds_server.sources.kubernetes.cluster import ClusterWatch
from xds_server.sources.kubernetes.informer import Backoff

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from hairpin.certificates import CertificateAuthority
    from hairpin.kubernetes.api import Api, JsonObject

log = logging.getLogger(__name__)


async def run(config: Path, *, kubeconfig: str | None, context: str | None, stop: asyncio.Event) -> None:
    """Serve until `stop`."""
    settings = read_settings(config)
    async with connect(kubeconfig=kubeconfig, context=context, in_cluster=True) as api, serving(api, settings):
        log.info("serving %s: xDS on %s, API on %s", ", ".join(sorted(settings.namespaces)), settings.xds, settings.api)
        await stop.wait()


@contextlib.asynccontextmanager
async def serving(
    api: Api,
    settings: Settings,
    *,
    identity: str = "",
    executor: Callable[[Executor], Executes] = lambda executor: executor,
) -> AsyncIterator[Replica]:
    """One replica of the controller, until the context ends.

    Args:
        api: the API server.
        settings: the file's.
        identity: the replica's name; by default its host's, and a few letters.
        executor: puts something before what writes.
    """
    replica = Replica(api, settings, await _authority(api, settings), identity or _identity(), executor)
    try:
        async with replica.ads, asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part) for part in replica.parts()]
            try:
                await replica.listen()
                yield replica
            finally:
                for task in running:
                    task.cancel()
                replica.agents.close()
    except OSError as error:
        raise UnavailableError(f"the controller can't listen: {error}") from error
    finally:
        await replica.runner.cleanup()


class Replica:
    """The parts of one replica."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        authority: CertificateAuthority,
        identity: str,
        executor: Callable[[Executor], Executes],
    ) -> None:
        self.settings = settings
        self.authority = authority
        self.cluster = ClusterWatch(api, settings.namespaces, settings.root_namespace, DELIVERED[settings.delivery])
        namespace = settings.namespace or api.namespace
        lease = Key(namespace, settings.lease_name)
        self.election = Election(api, lease, identity, seconds=settings.lease_seconds)
        self.tunnels = AgentReports(self.cluster.signal.set)
        self.executor = Executor(api, authority, self._note, DELIVERED[settings.delivery])
        self.controller = Controller(
            api,
            self.cluster,
            self.tunnels,
            plan_settings(settings, authority),
            executor=executor(self.executor),
            validate=MatchValidator(),
        )
        cache = SnapshotCache()
        self.egress = Egress(self.cluster, settings, cache)
        self._names = server_names(namespace, settings.cluster_domain)
        key, chain, self._end = server_certificate(authority, self._names)
        self._tls: ssl.SSLContext = server_tls(key, chain)
        self._served = ServerIdentity(key=key, chain=chain, authorities=authority.certificate)
        self.ads = AdsServer(
            cache=cache,
            registry=ProxyRegistry(),
            authorize=self.egress.authorize,
            credentials=server_credentials(lambda: self._served),
            host=settings.xds.host,
            port=settings.xds.port,
        )
        self.ads.ready.set()  # what is not known yet is refused by namespace
        self.agents = AgentsApi(
            self.cluster,
            settings,
            authority,
            reviewer=TokenReviewer(api),
            reports=self.tunnels,
            election=self.election,
            egress=self.egress,
        )
        self.runner = web.AppRunner(self.agents.application(), access_log=None, shutdown_timeout=1.0)

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What runs beside the servers, each until it is cancelled."""
        return [self.cluster.run(), self.egress.run(), self.election.run(self._lead), self._renew()]

    async def listen(self) -> None:
        """Begin to take agents' calls."""
        await self.runner.setup()
        address = self.settings.api
        await web.TCPSite(self.runner, address.host, address.port, ssl_context=self._tls).start()

    async def _lead(self) -> None:
        self.agents.take_reports()
        try:
            await self.controller.run()
        finally:
            self.agents.stop_reports()

    async def _renew(self) -> None:
        """A new certificate of the controller's own at half of the old one's time."""
        while True:
            await asyncio.sleep((self._end - datetime.now(UTC)).total_seconds() / 2)
            key, chain, self._end = server_certificate(self.authority, self._names)
            write_certificate(self._tls, key, chain)
            self._served = ServerIdentity(key=key, chain=chain, authorities=self.authority.certificate)
            log.info("the controller's certificate is renewed until %s", self._end)

    def _note(self, namespace: str, document: JsonObject) -> None:
        watch = self.cluster.namespaces.get(namespace)
        if watch is not None:
            (watch.sessions if document.get("kind") == watch.sessions.kind.name else watch.delivered).note(document)


def plan_settings(settings: Settings, authority: CertificateAuthority) -> PlanSettings:
    """What plans need of the settings."""
    return PlanSettings(
        certificate_authority=authority.certificate,
        trust_domain=settings.trust_domain,
        cluster_domain=settings.cluster_domain,
        root_namespace=settings.root_namespace,
        delivery=settings.delivery,
        routing_key=settings.routing_key,
        published=settings.published,
        shortest_lease=settings.shortest_lease,
        longest_lease=settings.longest_lease,
        start_grace=settings.start_grace,
    )


async def _authority(api: Api, settings: Settings) -> CertificateAuthority:
    """The CA, as soon as the API server answers.

    Raises:
        HairpinError: it is not to be had.
    """
    backoff = Backoff()
    while True:
        try:
            return await load_authority(api, settings.namespace or api.namespace)
        except ApiUnavailableError as error:
            log.warning("no certificate authority yet: %s", error)
        await asyncio.sleep(backoff.next())


def _identity() -> str:
    # The letters: a container that starts anew in its pod is another candidate.
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{secrets.token_hex(3)}"
