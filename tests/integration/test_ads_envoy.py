"""Real Envoys on the real server, over mutual TLS, in both variants of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from hairpin.certificates import CertificateAuthority
from hairpin.envoy import config
from hairpin.envoy.process import ManagedEnvoy
from tests.support.ads_client import SERVER_NAME, client_identity, server_identity
from tests.support.envoy import HOST, Http, Ports, eventually
from tests.support.envoy_resources import eds_cluster, endpoints_at, http_listener, marking_filter, route_to
from tests.support.xds import CDS, ECDS, EDS, LDS, RDS
from xds_server.cache.snapshot_cache import SnapshotCache
from xds_server.model.node import Node
from xds_server.model.resource import Resource
from xds_server.model.snapshot import Snapshot
from xds_server.server.ads import AdsServer, ForbiddenProxyError, PeerIdentity, ProxyRegistry, server_credentials

pytestmark = pytest.mark.envoy

IDENTITY = "spiffe://hairpin.local/ns/shop/sa/checkout"
NODE = "sidecar~checkout.shop"
GROUP = "sidecar/checkout"


class Plane:
    """The control plane, which can be stopped and started again with nothing left of what it knew."""

    def __init__(self, ports: Ports) -> None:
        self.port = ports()
        self.authority = CertificateAuthority.create("mesh")
        self._identity = server_identity(self.authority)
        self.cache = SnapshotCache()
        self.registry = ProxyRegistry()
        self.server: AdsServer | None = None

    async def start(self) -> None:
        self.cache, self.registry = SnapshotCache(), ProxyRegistry()
        self.server = AdsServer(
            cache=self.cache,
            registry=self.registry,
            authorize=_authorize,
            credentials=server_credentials(lambda: self._identity),
            port=self.port,
        )
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop()

    async def set(self, *resources: Resource, wait: bool = True) -> Snapshot:
        """Serve these, and wait until the proxy has accepted them all."""
        assert self.server is not None
        snapshot = Snapshot.of(resources)
        self.cache.set(GROUP, snapshot)
        self.server.ready.set()
        if wait:
            async with asyncio.timeout(30):
                for type_url in (ECDS, RDS, LDS, EDS, CDS):
                    await self.registry.wait_synced(GROUP, type_url, snapshot.version(type_url))
        return snapshot


def _authorize(identity: PeerIdentity, node: Node) -> str:
    if identity != PeerIdentity(uris=(IDENTITY,)) or node.id != NODE:
        raise ForbiddenProxyError(f"{identity} is not {node.id}")
    return GROUP


@pytest.fixture
async def plane(ports: Ports) -> AsyncIterator[Plane]:
    plane = Plane(ports)
    await plane.start()
    yield plane
    await plane.stop()


@pytest.fixture
async def backends() -> AsyncIterator[tuple[int, int]]:
    """Two servers that answer their own names; their ports."""
    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for name in ("a", "b"):

            async def answer(_request: web.Request, name: str = name) -> web.Response:
                return web.Response(text=name)

            app = web.Application()
            app.router.add_get("/", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, HOST, 0).start()
            ports.append(runner.addresses[0][1])
        yield ports[0], ports[1]


@dataclass(frozen=True)
class Mesh:
    """A control plane, one proxy of it that is not started yet, and what it may route to."""

    plane: Plane
    bootstrap: config.Config
    backends: tuple[int, int]
    ports: Ports
    port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def proxy(self) -> ManagedEnvoy:
        return ManagedEnvoy("proxy", self.bootstrap, self.directory)


@pytest.fixture(params=[False, True], ids=["sotw", "delta"])
def mesh(request: pytest.FixtureRequest, plane: Plane, backends: tuple[int, int], ports: Ports, tmp_path: Path) -> Mesh:
    identity = config.Identity(tmp_path / "identity")
    client = client_identity(plane.authority, uris=(IDENTITY,))
    config.write_identity(
        identity, key=client.key.encode(), chain=client.chain.encode(), authority=client.authority.encode()
    )
    server = config.ads_cluster("xds-grpc", config.tcp(HOST, plane.port), identity, config.san("DNS", SERVER_NAME))
    bootstrap = {
        "node": {"id": NODE, "cluster": "checkout"},
        "dynamic_resources": {
            "ads_config": config.ads("xds-grpc", delta=request.param),
            "cds_config": config.ADS,
            "lds_config": config.ADS,
        },
        "static_resources": {"clusters": [server]},
    }
    return Mesh(plane, bootstrap, backends, ports, ports(), tmp_path / "envoy")


async def counters(envoy: ManagedEnvoy) -> dict[str, int]:
    """What a proxy counts when its configuration changes."""
    names = "listener_manager.listener_(modified|removed)|cluster_manager.cluster_(modified|removed)|.*update_rejected"
    return {name: value for name, value in (await envoy.admin.stats(f"^({names})$")).items() if value}


class Load:
    """Requests, one after another on one connection, until the context ends; counts what came back."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[str] = Counter()
        self._url = url
        self._stop = False

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self._stop:
                async with session.get(self._url) as response:
                    self.answers[f"{response.status} {await response.text()}"] += 1

    async def more(self, count: int = 20) -> None:
        """Wait for so many further answers."""
        target = self.answers.total() + count
        await eventually(lambda: self.answers.total() >= target, what=f"{count} further answers")

    def stop(self) -> None:
        self._stop = True


@contextlib.asynccontextmanager
async def load(url: str) -> AsyncIterator[Load]:
    requests = Load(url)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(requests.run())
        try:
            yield requests
        finally:
            requests.stop()


async def test_a_change_arrives(mesh: Mesh, http: Http):
    fixed = [eds_cluster("a"), endpoints_at("a", mesh.backends[0]), http_listener("l", mesh.port), route_to("a")]
    await mesh.plane.set(*fixed, marking_filter(1), wait=False)
    async with mesh.proxy() as envoy:
        await mesh.plane.set(*fixed, marking_filter(1))
        first = await http(mesh.url)
        assert (first.status, first.text, first.headers["x-filter"]) == (200, "a", "1")
        await mesh.plane.set(*fixed, marking_filter(2))
        assert (await http(mesh.url)).headers["x-filter"] == "2"
        assert not await counters(envoy)
        (status,) = mesh.plane.registry.proxies(GROUP)
        assert (status.node.id, status.identity.uris) == (NODE, (IDENTITY,))
        assert set(status.types) == {CDS, EDS, LDS, RDS, ECDS}
    await eventually(lambda: not len(mesh.plane.registry), what="the proxy gone")


async def test_a_refused_listener_is_kept_with_its_reason_and_not_sent_again(mesh: Mesh, http: Http):
    second = mesh.ports()
    fixed = [eds_cluster("a"), endpoints_at("a", mesh.backends[0]), http_listener("l", mesh.port), route_to("a")]
    bad = http_listener("m", second, script="this is not Lua")
    await mesh.plane.set(*fixed, marking_filter(1), wait=False)
    async with mesh.proxy() as envoy:
        await mesh.plane.set(*fixed, marking_filter(1))
        refused = await mesh.plane.set(*fixed, bad, marking_filter(1), wait=False)
        async with asyncio.timeout(30):
            (status,) = await mesh.plane.registry.wait_for(lambda all_: any(p.types[LDS].nack for p in all_))
        nack = status.types[LDS].nack
        assert nack is not None
        assert "Error adding/updating listener(s) m" in nack.reason
        assert "script load error" in nack.reason
        assert nack.version == refused.version(LDS)

        # All else goes on; the listener is not offered again.
        for value in range(2, 6):
            latest = await mesh.plane.set(*fixed, bad, marking_filter(value), wait=False)
            async with asyncio.timeout(30):
                await mesh.plane.registry.wait_synced(GROUP, ECDS, latest.version(ECDS))
        assert (await http(mesh.url)).headers["x-filter"] == "5"
        assert await counters(envoy) == {"listener_manager.lds.update_rejected": 1}
        assert mesh.plane.registry.proxies()[0].types[LDS].nack == nack

        await mesh.plane.set(*fixed, http_listener("m", second), marking_filter(6))
        assert (await http(f"http://{HOST}:{second}/")).text == "a"
        assert mesh.plane.registry.proxies()[0].types[LDS].nack is None
        assert await counters(envoy) == {"listener_manager.lds.update_rejected": 1}


async def test_the_server_restarts(mesh: Mesh, http: Http):
    fixed = [eds_cluster("a"), endpoints_at("a", mesh.backends[0]), http_listener("l", mesh.port), route_to("a")]
    await mesh.plane.set(*fixed, marking_filter(1), wait=False)
    async with mesh.proxy() as envoy, load(mesh.url) as requests:
        await mesh.plane.set(*fixed, marking_filter(1))
        await requests.more()
        await mesh.plane.stop()
        await requests.more()
        await mesh.plane.start()
        await requests.more()  # not ready: the proxy is refused, and keeps what it has
        assert not len(mesh.plane.registry)
        await mesh.plane.set(*fixed, marking_filter(1))
        assert not await counters(envoy)  # nothing was taken away or put in anew
        await mesh.plane.set(*fixed, marking_filter(2))
        await requests.more()
        assert (await http(mesh.url)).headers["x-filter"] == "2"
        assert set(requests.answers) == {"200 a"}


async def test_make_before_break(mesh: Mesh):
    """The route moves to a cluster that is new, and the old one goes: over and over, under load."""
    fixed = [http_listener("l", mesh.port), marking_filter(1)]

    def generation(number: int) -> list[Resource]:
        name = f"generation-{number}"
        return [*fixed, eds_cluster(name), endpoints_at(name, mesh.backends[number % 2]), route_to(name)]

    await mesh.plane.set(*generation(0), wait=False)
    async with mesh.proxy() as envoy, load(mesh.url) as requests:
        await mesh.plane.set(*generation(0))
        for number in range(1, 11):
            await mesh.plane.set(*generation(number))
            await requests.more(5)
        assert set(requests.answers) == {"200 a", "200 b"}
        assert (await counters(envoy)) == {"cluster_manager.cluster_removed": 10}


async def test_changes_faster_than_the_proxy_end_at_the_last(mesh: Mesh, http: Http):
    """Clusters come, change and go without a wait; what was never asked for may be skipped, nothing may get stuck."""
    fixed = [http_listener("l", mesh.port), eds_cluster("a"), endpoints_at("a", mesh.backends[0])]
    await mesh.plane.set(*fixed, route_to("a"), marking_filter(0), wait=False)
    async with mesh.proxy(), load(mesh.url) as requests:
        await mesh.plane.set(*fixed, route_to("a"), marking_filter(0))
        for value in range(1, 41):
            name = f"c{value % 3}"
            extra = [eds_cluster(name, connect_timeout=value), endpoints_at(name, mesh.backends[1]), route_to(name)]
            await mesh.plane.set(*fixed, *extra, marking_filter(value), wait=False)
            await asyncio.sleep(0.002)
        await mesh.plane.set(*fixed, route_to("a"), marking_filter("last"))
        await requests.more(5)
        assert (await http(mesh.url)).headers["x-filter"] == "last"
        assert set(requests.answers) <= {"200 a", "200 b"}


@pytest.mark.parametrize("mesh", [True], ids=["delta"], indirect=True)
async def test_a_restart_with_a_change(mesh: Mesh, http: Http):
    """The new server has never heard of the cluster that the proxy's route uses; still no request fails.

    Only in delta: a state-of-the-world client does not say what it has.
    """
    fixed = [http_listener("l", mesh.port), marking_filter(1)]
    before = [eds_cluster("a"), endpoints_at("a", mesh.backends[0]), route_to("a")]
    after = [eds_cluster("b"), endpoints_at("b", mesh.backends[1]), route_to("b")]
    await mesh.plane.set(*fixed, *before, wait=False)
    async with mesh.proxy() as envoy, load(mesh.url) as requests:
        await mesh.plane.set(*fixed, *before)
        await requests.more()
        await mesh.plane.stop()
        await mesh.plane.start()
        await mesh.plane.set(*fixed, *after)
        await requests.more()
        assert (await http(mesh.url)).text == "b"
        assert set(requests.answers) == {"200 a", "200 b"}
        assert (await counters(envoy)) == {"cluster_manager.cluster_removed": 1}
