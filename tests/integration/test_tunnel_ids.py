"""Sessions whose ids are NAME.NAMESPACE, as in Kubernetes: up to 127 characters, with dots."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from agent.reports import GAUGES, Reports
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually
from tests.support.protocols import PROTOCOLS
from tests.support.tunnels import AgentProxy, Tunnels, tunnels

pytestmark = pytest.mark.envoy

IDS = ["checkout-alice-1f2e3d.shop", "checkout-alice-1f2e3d.shop-2", "checkout-alice-1f2e3d", "n" * 63 + "." + "s" * 63]
"""One is the beginning of another; the last is as long as an id can be."""


@dataclass(frozen=True)
class World:
    tunnels: Tunnels
    agent: AgentProxy


@pytest.fixture(scope="module")
async def world(tmp_path_factory):
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(tunnels(tmp_path_factory.mktemp("i")))
        agent = await made.agent()
        for number, session in enumerate(IDS):
            app = await stack.enter_async_context(echo_process(f"app-{number}"))
            await made.laptop(session, agent, app=app.http, name=f"laptop-{number}")
        for session in IDS:
            await eventually(lambda session=session: agent.answers(session), what=f"{session}'s laptop answers")
        await eventually(lambda: agent.reports.tunnels == set(IDS), what="the tunnels are reported, a moment later")
        yield World(made, agent)


async def test_a_request_arrives_at_the_laptop_of_the_whole_id(world):
    assert [(await world.agent.get(session)).who for session in IDS] == [f"app-{number}" for number in range(len(IDS))]
    for session in (IDS[0] + ".x", "shop", "checkout-alice-1f2e3d.", IDS[-1] + "s"):
        assert (await world.agent.get(session)).status == 503


@pytest.mark.parametrize("name", ["http1", "websocket", "upload"])
async def test_the_longest_id_carries_what_others_do(world, name):
    await PROTOCOLS[name](world.agent.steer, "checkout", {"x-hairpin-session": IDS[-1]}, f"app-{len(IDS) - 1}")


async def test_tunnels_are_reported_by_event_and_by_gauge_under_the_whole_id(world):
    assert world.agent.reports.tunnels == set(IDS)
    gauges = await world.agent.envoy.admin.stats(GAUGES)
    by_gauge_alone = Reports()
    for _ in range(2):
        by_gauge_alone.reconcile(gauges)
    assert by_gauge_alone.tunnels == set(IDS)


async def test_a_tunnel_that_ends_is_reported_under_the_whole_id(world):
    async with echo_process("gone") as app:
        laptop = await world.tunnels.laptop("brief.shop", world.agent, app=app.http)
        await eventually(lambda: "brief.shop" in world.agent.reports.tunnels, what="it is up")
        await laptop.envoy.stop()
    await eventually(lambda: "brief.shop" not in world.agent.reports.tunnels, what="it is down")
    assert world.agent.reports.tunnels == set(IDS)


@pytest.mark.parametrize("certificate", ["victim", "victim.shop-2", "shop", "mallory.shop"])
async def test_a_certificate_of_another_namespace_or_name_takes_no_tunnel(world, certificate):
    rejected = "reverse_tunnel.handshake.validation_failed"
    before = (await world.agent.envoy.admin.stats(rejected))[rejected]
    async with echo_process("impostor") as app:
        name = f"impostor-{certificate}"
        impostor = await world.tunnels.laptop(
            "victim.shop", world.agent, app=app.http, certificate=certificate, name=name
        )

        async def refused() -> bool:
            return (await world.agent.envoy.admin.stats(rejected))[rejected] > before

        await eventually(refused, what="the handshake under another's id is refused")
        assert (await world.agent.get("victim.shop")).status == 503
        assert "victim.shop" not in world.agent.reports.tunnels
        await impostor.envoy.stop()


async def test_the_requests_line_has_the_whole_id(world):
    await world.agent.get(IDS[-1], "/?whole")

    def logged():
        return next((line for line in world.agent.lines if line.get("path") == "/?whole"), None)

    assert (await eventually(logged, what="the request's line"))["session"] == IDS[-1]
