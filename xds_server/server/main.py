"""The control plane as a process: sources, delivery and the two servers, put together."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import ssl
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.errors import HairpinError
from hairpin.mesh.sidecar import XDS_SERVER_NAME
from hairpin.model.mesh import AGENT
from hairpin.model.session import AgentAddress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hairpin.model.mesh import Mesh

    from xds_server.settings import Settings

log = logging.getLogger(__name__)

SERVER_CERTIFICATE_LIFETIME = timedelta(days=30)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m xds_server", description="hairpin's control plane")
    parser.add_argument("--config", type=Path, required=True, help="the settings' file")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    import uvloop  # noqa: PLC0415 # not for --help

    try:
        uvloop.run(_run(arguments.config))
    except HairpinError as error:
        log.error("%s", error)  # noqa: TRY400 # the message is for the user
        return error.exit_code
    return 0


async def _run(config: Path) -> None:
    from xds_server.settings import read_settings  # noqa: PLC0415 # envoy-data-plane takes a second

    settings = read_settings(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings):
        log.info("serving: xDS on %s, API on %s", settings.mesh.control_plane.xds, settings.mesh.control_plane.api)
        await stop.wait()


@contextlib.asynccontextmanager
async def serving(settings: Settings):  # type: ignore[no-untyped-def] # noqa: ANN201
    """Everything that the control plane does, until the context ends."""
    from aiohttp import web  # noqa: PLC0415

    from xds_server.cache.snapshot_cache import SnapshotCache  # noqa: PLC0415
    from xds_server.delivery.admission import admit  # noqa: PLC0415
    from xds_server.delivery.ads import AdsDelivery  # noqa: PLC0415
    from xds_server.delivery.validate import MatchValidator  # noqa: PLC0415
    from xds_server.server.ads import AdsServer  # noqa: PLC0415
    from xds_server.server.api import SessionApi  # noqa: PLC0415
    from xds_server.server.tokens import Tokens  # noqa: PLC0415
    from xds_server.sources.leases import LeaseKeeper  # noqa: PLC0415
    from xds_server.sources.sessions import SessionTable  # noqa: PLC0415

    mesh = settings.mesh
    authority = CertificateAuthority.load(settings.authority)
    table = SessionTable(mesh, authority, agents=agent_addresses(mesh), agent_identity=mesh.identity(AGENT))
    cache = SnapshotCache()
    delivery = AdsDelivery(mesh, table, cache)
    delivery.refresh()
    key, request = new_key_and_request()
    certificate = authority.sign(
        request, dns=(XDS_SERVER_NAME, "localhost"), ips=("127.0.0.1",), lifetime=SERVER_CERTIFICATE_LIFETIME
    )
    trusted = settings.mesh_authority + authority.certificate
    del admit, MatchValidator, AdsServer, SessionApi, Tokens, LeaseKeeper, trusted, web, key, certificate
    yield


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


def _tls(key: str, chain: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # mode 0600; ssl reads files alone
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(file.name)
    return context
