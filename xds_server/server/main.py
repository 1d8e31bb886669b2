"""The control plane as a process: sources, delivery and the two servers, put together."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.errors import HairpinError, UnavailableError
from hairpin.mesh.sidecar import XDS_SERVER_NAME
from hairpin.model.mesh import AGENT
from hairpin.model.session import AgentAddress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hairpin.model.mesh import Mesh
    from xds_server.model.node import Node
    from xds_server.server.ads import Authorize
    from xds_server.server.registry import PeerIdentity
    from xds_server.settings import Settings

log = logging.getLogger(__name__)

SERVER_CERTIFICATE_LIFETIME = timedelta(days=30)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m xds_server", description="hairpin's control plane")
    parser.add_argument("--config", type=Path, required=True, help="the settings' file")
    parser.add_argument("--kubernetes", action="store_true", help="sessions are objects of a cluster, with Istio")
    parser.add_argument("--kubeconfig", help="with --kubernetes: the cluster's; by default the pod's service account")
    parser.add_argument("--context", help="with --kubernetes: the kubeconfig's context")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    import uvloop  # noqa: PLC0415 # not for --help

    try:
        uvloop.run(_run(arguments))
    except HairpinError as error:
        log.error("%s", error)  # noqa: TRY400 # the message is for the user
        return error.exit_code
    return 0


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if arguments.kubernetes:
        from xds_server.server.kubernetes.main import run  # noqa: PLC0415 # envoy-data-plane takes a second

        await run(arguments.config, kubeconfig=arguments.kubeconfig, context=arguments.context, stop=stop)
    else:
        await _run_embedded(arguments.config, stop)


async def _run_embedded(config: Path, stop: asyncio.Event) -> None:
    from xds_server.settings import read_settings  # noqa: PLC0415 # likewise

    settings = read_settings(config)
    async with serving(settings):
        log.info("serving: xDS on %s, API on %s", settings.mesh.control_plane.xds, settings.mesh.control_plane.api)
        await stop.wait()


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """Everything that the control plane does, until the context ends."""
    from aiohttp import web  # noqa: PLC0415

    from xds_server.cache.snapshot_cache import SnapshotCache  # noqa: PLC0415
    from xds_server.delivery.ads import AdsDelivery  # noqa: PLC0415
    from xds_server.delivery.validate import MatchValidator  # noqa: PLC0415
    from xds_server.server.ads import AdsServer  # noqa: PLC0415
    from xds_server.server.api import SessionApi  # noqa: PLC0415
    from xds_server.server.credentials import ServerIdentity, server_credentials  # noqa: PLC0415
    from xds_server.server.registry import ProxyRegistry  # noqa: PLC0415
    from xds_server.server.settle import Settler  # noqa: PLC0415
    from xds_server.server.tls import server_tls  # noqa: PLC0415
    from xds_server.server.tokens import Tokens  # noqa: PLC0415
    from xds_server.sources.leases import LeaseKeeper  # noqa: PLC0415
    from xds_server.sources.sessions import SessionTable  # noqa: PLC0415

    mesh, listen = settings.mesh, settings.mesh.control_plane
    authority = CertificateAuthority.load(settings.authority)
    table = SessionTable(mesh, authority, agents=agent_addresses(mesh), agent_identity=mesh.identity(AGENT))
    cache, registry = SnapshotCache(), ProxyRegistry()
    delivery = AdsDelivery(mesh, table, cache)
    delivery.refresh()
    table.listeners.append(lambda _change, _session: delivery.refresh())
    table.agent_listeners.append(delivery.refresh)
    key, chain = server_certificate(authority)
    identity = ServerIdentity(key=key, chain=chain, authorities=settings.mesh_authority + authority.certificate)
    ads = AdsServer(
        cache=cache,
        registry=registry,
        authorize=authorizer(mesh),
        credentials=server_credentials(lambda: identity),
        host=listen.xds.host,
        port=listen.xds.port,
    )
    ads.ready.set()  # sessions live in memory: there is nothing to wait for
    settler = Settler(table, cache, registry)
    api = SessionApi(
        table, Tokens(settings.tokens), authority, validate=MatchValidator(), registry=registry, settler=settler
    )
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, listen.api.host, listen.api.port, ssl_context=server_tls(key, chain))
    try:
        async with ads, asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(LeaseKeeper(table).run()), tasks.create_task(settler.run())]
            await site.start()
            yield
            for task in running:
                task.cancel()
            api.close()
    except OSError as error:
        raise UnavailableError(f"the control plane can't listen: {error}") from error
    finally:
        await runner.cleanup()


def server_certificate(authority: CertificateAuthority) -> tuple[str, str]:
    """The control plane's own key and certificate chain, of hairpin's CA."""
    key, request = new_key_and_request()
    names = (XDS_SERVER_NAME, "localhost")
    certificate = authority.sign(request, dns=names, ips=("127.0.0.1",), lifetime=SERVER_CERTIFICATE_LIFETIME)
    return key, certificate.chain


def authorizer(mesh: Mesh) -> Authorize:
    """Which group a proxy gets: its certificate decides."""
    from xds_server.delivery.admission import admit  # noqa: PLC0415
    from xds_server.server.errors import ForbiddenProxyError  # noqa: PLC0415

    group_of = admit(mesh)

    def authorize(peer: PeerIdentity, node: Node) -> str:
        group = group_of(peer.uris, node.id)
        if group is None:
            raise ForbiddenProxyError(
                f"{node.id!r} is not a proxy of {peer}: its certificate decides what it may fetch"
            )
        return group

    return authorize


def agent_addresses(mesh: Mesh) -> tuple[AgentAddress, ...]:
    """Where laptops reach the agent's replicas."""
    return tuple(
        AgentAddress(
            name=agent.name,
            host=agent.tunnel.host,
            tunnel_port=agent.tunnel.port,
            egress_port=agent.egress.port,
        )
        for agent in mesh.agents
    )
