"""The real mesh under load: one sidecar as Istio makes it, others with hairpin's plumbing, and hairpin installed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
import psutil

from hairpin.errors import HairpinError
from hairpin.kubernetes.installation import CONTROLLER, SYSTEM
from hairpin.model.environment import Environment
from tests.support.cluster.images import PYTHON
from tests.support.cluster.mesh import Cluster, cluster
from tests.support.cluster.pods import Pod
from tests.support.istio_mesh import IstioMesh, LaptopRun, developers, install
from xds_server.delivery.istio.envoyfilter import IstioMesh as Names
from xds_server.delivery.istio.envoyfilter import SteeredWorkload, plumbing_object, sessions_object
from xds_server.generate.steer import Claim
from xds_server.model.cluster import Key

SERVED, CROWD = "bench", "crowd"
"""The namespace that hairpin is installed for; and one of which the controller knows nothing: its rules are the bench's."""
PLAIN, HELD, FRESH = "plain", "held", "fresh"
CROWDS = {"none": 0, "one": 1, "many": 100}
"""Workloads with the plumbing and so many sessions' rules."""
PORT = 8080
PATIENCE = 60.0
_PROBE_SECONDS = 0.01


class IstioBench(IstioMesh):
    """What is measured in."""

    def __init__(self, made: Cluster) -> None:
        super().__init__(made)
        self.addresses: dict[str, str] = {}
        self.place: Pod | None = None

    @property
    def inside(self) -> list[str]:
        """Put before a command: it runs in the caller's network namespace, where its sidecar takes all connections."""
        assert self.place is not None  # `istio_bench` has found it
        return ["nsenter", f"--net={self.place.network}", "--"]

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Requests from the caller, on connections kept open."""
        assert self.place is not None  # likewise
        async with self.place.session() as session:
            yield session

    async def who(self, session: aiohttp.ClientSession, service: str, environment: str | None) -> str:
        """Which application answers."""
        headers = request_headers(service, environment)
        try:
            async with session.get(f"http://{self.addresses[service]}/", headers=headers) as response:
                return response.headers.get("x-who", f"status {response.status}")
        except aiohttp.ClientError as error:
            return str(error)

    async def served_by(self, who: str, service: str, environment: str | None) -> None:
        """Wait until an application answers.

        Raises:
            HairpinError: it does not.
        """
        found = ""
        async with self.client() as session:
            try:
                async with asyncio.timeout(PATIENCE):
                    while (found := await self.who(session, service, environment)) != who:
                        await asyncio.sleep(_PROBE_SECONDS)
            except TimeoutError:
                raise HairpinError(f"{environment} at {service} is answered by {found}, not by {who}") from None

    @contextlib.asynccontextmanager
    async def run(self, user: str, service: str, *flags: str, port: int = 0) -> AsyncIterator[LaptopRun]:
        """`hairpin run` on the laptop, with the user's name as environment; it has just been typed."""
        port = port or next(_ports)
        app = [PYTHON, "-m", "bench.app", str(port), f"laptop-{user}"]
        what = ["run", "--env", user, "--target", f"deployment/{service}", "-n", SERVED, *flags]
        async with self.hairpin(user, *what, "--", *app, namespace=SERVED) as run:
            yield run

    @contextlib.asynccontextmanager
    async def without_controllers(self) -> AsyncIterator[None]:
        """No controller runs in here; afterwards as many as before."""
        found = await self.cluster.client.get("Deployment", CONTROLLER, SYSTEM)
        assert found is not None  # `hairpin install`
        await self._scale_controllers(0)
        try:
            yield
        finally:
            await self._scale_controllers(found["spec"]["replicas"])

    async def _scale_controllers(self, replicas: int) -> None:
        client, scale = self.cluster.client, {"spec": {"replicas": replicas}}
        await client.patch("Deployment", CONTROLLER, scale, namespace=SYSTEM)
        await self.cluster.rolled_out("Deployment", CONTROLLER, SYSTEM)

        async def so_many() -> bool:
            return len(await self.cluster.pods(SYSTEM)) == replicas

        await eventually(so_many, f"{replicas} controllers run")

    async def rules_in_sidecar(self, service: str) -> str:
        """The extension configurations that the sidecar of a service has, as text."""
        pod = await self.pod_of(service)
        async with pod.session() as session:
            return await discovered(session)

    async def pod_of(self, service: str) -> Pod:
        """Its one pod."""
        return await self.cluster.pod(namespace_of(service), f"app={service}")


_ports = iter(range(20_000, 30_000))
"""Of the laptop's own network namespace: all are free."""


def namespace_of(service: str) -> str:
    """Where a service is."""
    return CROWD if service in CROWDS else SERVED


def request_headers(service: str, environment: str | None) -> dict[str, str]:
    """What makes a request to its address one to a service. Short names are those of the caller's namespace alone."""
    return {"Host": f"{service}.{namespace_of(service)}", **({"x-env": environment} if environment else {})}


def rules(service: str, sessions: int, generation: int = 0) -> dict[str, Any]:
    """The EnvoyFilter with so many sessions of a service in CROWD, as the controller would write it."""
    created = datetime(2026, 1, 1, tzinfo=UTC)
    names = [f"session-{number}" for number in range(sessions - 1)] + [f"last-{generation}"] * bool(sessions)
    claims = [Claim(session=f"{name}.{CROWD}", created=created, match=Environment(name).match) for name in names]
    return sessions_object(_workload(service), PORT, claims, Names())


def _workload(service: str) -> SteeredWorkload:
    return SteeredWorkload(kind="deployment", key=Key(CROWD, service), selector={"app": service})


async def discovered(session: aiohttp.ClientSession) -> str:
    """The extension configurations that a sidecar has, as its admin interface tells."""
    async with session.get("http://127.0.0.1:15000/config_dump?resource=ecds_filters") as response:
        return await response.text()


async def eventually(true: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait.

    Raises:
        HairpinError: it did not come.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            while not await true():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise HairpinError(f"not within {PATIENCE:.0f} s: {what}") from None


@contextlib.asynccontextmanager
async def istio_bench(*flags: str) -> AsyncIterator[IstioBench]:
    """The mesh with everything up.

    Args:
        flags: of `hairpin install`.
    """

    def say(text: str) -> None:
        sys.stderr.write(f"… {text}\n")

    async with cluster(say=say) as made:
        say("applications")
        await made.client.apply(*_namespaces(), *[o for name in _services() for o in _application(name)])
        for name in _services():
            await made.rolled_out("Deployment", name, namespace_of(name))
        say("hairpin install")
        await install(made, *flags, namespaces=(SERVED,))
        await made.client.apply(developers(SERVED))
        bench = IstioBench(made)
        bench.place = await bench.pod_of("caller")
        for name in _services():
            found = await made.client.get("Service", name, namespace_of(name))
            assert found is not None
            bench.addresses[name] = found["spec"]["clusterIP"]
        say("plumbing")
        await _plumb(bench)
        yield bench


async def _plumb(bench: IstioBench) -> None:
    for name, sessions in CROWDS.items():
        plumbing = plumbing_object(_workload(name), PORT, Names())
        await bench.cluster.client.apply(rules(name, sessions), plumbing, manager="bench")
        pod = await bench.pod_of(name)
        async with pod.session() as session:

            async def there(session: aiohttp.ClientSession = session, sessions: int = sessions) -> bool:
                text = await discovered(session)
                return "hairpin" in text and text.count('"permissions"') == sessions

            await eventually(there, f"the sidecar of {name} has the rules of {sessions} sessions")


def _services() -> Sequence[str]:
    return ("caller", PLAIN, HELD, FRESH, *CROWDS)


def _namespaces() -> list[dict[str, Any]]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"istio-injection": "enabled"}}}
        for name in (SERVED, CROWD)
    ]


def _application(name: str) -> list[dict[str, Any]]:
    """An Envoy that answers by itself, behind a sidecar."""
    named = {"name": name, "namespace": namespace_of(name)}
    container = {
        "name": "app",
        "image": "hairpin.test/python:1",
        "args": ["-m", "bench.app", str(PORT), "cluster", "0.0.0.0"],
        "ports": [{"name": "web", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True},
        "containers": [container],
    }
    port = {"name": "http", "port": 80, "targetPort": "web"}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    deployment = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": named,
            "spec": {"selector": {"app": name}, "ports": [port]},
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": deployment},
    ]


def proxies_cpu() -> float:
    """CPU seconds that all Envoys of the mesh and the laptops have used, and what forwards ports for the latter."""
    total = 0.0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            name, command = process.name(), process.cmdline()
            if name.startswith("envoy") or "kubectl" in name or (name.startswith("python") and "run" in command):
                times = process.cpu_times()
                total += times.user + times.system
    return total
