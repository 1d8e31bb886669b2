"""Agents that can't serve, as a sidecar sees them: each request is executed once, and somebody's answer reaches the caller.

The sidecar is a real Envoy with the clusters and routes that steering makes. In place of agents and app are servers that count;
the health of the agents' endpoints is what istiod would say of their pods: since Istio sends those that are not ready, too, a
part of the requests goes to the app at the first try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from envoy_data_plane.envoy.config.route.v3 import RouteMatch

from hairpin.envoy import config
from hairpin.envoy.process import ManagedEnvoy
from hairpin.model.mesh import SocketAddress
from tests.support.envoy import HOST, http_listener, static
from tests.support.ports import free_port
from xds_server.generate.steer import SteeringPoint, clusters, fail_open_routes

pytestmark = pytest.mark.envoy

AGENTS = "outbound|8080||hairpin-agent.shop.svc.cluster.local"
TIMES = 60
"""A third of them would go to the app first: that none does is no chance."""


@dataclass
class Sidecar:
    """The one under test: what it has been asked, and by whom that was executed."""

    port: int
    executed: Counter[str] = field(default_factory=Counter)

    async def ask(self, method: str) -> Counter[tuple[str, str]]:
        """So many requests, one after the other: the answers and whose they say they are."""
        answers: Counter[tuple[str, str]] = Counter()
        async with aiohttp.ClientSession() as session:
            for _ in range(TIMES):
                async with session.request(method, f"http://{HOST}:{self.port}/") as response:
                    served = response.headers.getall("x-hairpin-served", [])
                    answers[f"{response.status} {await response.text()}", ",".join(served)] += 1
        return answers


@asynccontextmanager
async def server(executed: Counter[str], name: str, status: int, served: str | None) -> AsyncIterator[int]:
    """A port whose requests are counted under this name."""

    async def handle(request: web.BaseRequest) -> web.Response:
        executed[name] += 1
        await request.read()
        headers = {"x-hairpin-served": served} if served else {}
        return web.Response(status=status, text=name if status == 200 else "", headers=headers)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sidecar(directory: Path, *, app: str | None, tunnel: bool, health: tuple[str, ...]) -> AsyncIterator[Sidecar]:
    """One whose agents have this health and, or not, a tunnel; the app says this of its own answers."""
    made = Sidecar(free_port())
    agent = (
        server(made.executed, "laptop", 200, "via_upstream")
        if tunnel
        else server(made.executed, "agent", 503, "unclaimed")
    )
    async with agent as agents, server(made.executed, "app", 200, app) as own:
        point = SteeringPoint(port=8080, app=SocketAddress(HOST, own), agent_cluster=AGENTS)
        local, steered, _ = (cluster.to_dict() for cluster in clusters(point))
        agent_cluster = config.static_cluster(AGENTS, *(config.tcp(HOST, agents) for _ in health))
        (locality,) = agent_cluster["load_assignment"]["endpoints"]
        for endpoint, one in zip(locality["lb_endpoints"], health, strict=True):
            endpoint["health_status"] = one
        routes = (
            route.to_dict() for route in fail_open_routes("r", RouteMatch(prefix="/"), steered["name"], "alice.shop")
        )
        bootstrap = static(http_listener(made.port, *routes), clusters=(agent_cluster, local, steered))
        async with ManagedEnvoy("sidecar", bootstrap, directory):
            yield made


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("app", [None, "unclaimed"])
async def test_what_the_app_is_asked_first_is_its_own_and_repeated_by_nobody(tmp_path, method, app):
    """Whatever the app says of itself."""
    async with sidecar(tmp_path, app=app, tunnel=True, health=("HEALTHY", "UNHEALTHY")) as made:
        answers = await made.ask(method)
    assert set(answers) == {("200 laptop", "via_upstream"), ("200 app", "application")}
    assert made.executed == {"laptop": answers["200 laptop", "via_upstream"], "app": answers["200 app", "application"]}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("health", [("HEALTHY",), ("HEALTHY", "UNHEALTHY"), ("UNHEALTHY", "UNHEALTHY"), ()])
async def test_without_a_tunnel_all_is_the_apps(tmp_path, method, health):
    async with sidecar(tmp_path, app=None, tunnel=False, health=health) as made:
        assert await made.ask(method) == {("200 app", "application"): TIMES}
    assert made.executed["app"] == TIMES


async def test_healthy_agents_get_all(tmp_path):
    async with sidecar(tmp_path, app=None, tunnel=True, health=("HEALTHY", "HEALTHY")) as made:
        assert await made.ask("GET") == {("200 laptop", "via_upstream"): TIMES}
