"""A mesh with two replicas of the agent: a laptop has a tunnel to each, and either may go."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from tests.support.mesh import echo_mesh, eventually, running_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(150)]

REPLICAS = ("hairpin-agent-0", "hairpin-agent-1")
LAPTOP = "laptop of alice"


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    replicated = echo_mesh(agents={"replicas": len(REPLICAS)})
    async with running_mesh(replicated, tmp_path_factory.mktemp("replicas")) as running:
        yield running


async def steered(mesh):
    """How many requests checkout's sidecar has sent to each replica."""
    clusters = await mesh.supervisor.proxies["checkout"].admin.get("/clusters")
    counts = [re.search(rf"hairpin-agent\S*::{agent.inbound}::rq_total::(\d+)", clusters) for agent in mesh.mesh.agents]
    return [int(found[1]) if found else 0 for found in counts]


async def whole(mesh, session):
    status = (await mesh.api("alice", "GET", f"/v1/sessions/{session}"))[1]["status"]
    return (status["phase"], sorted(status["tunnels"])) == ("Active", sorted(REPLICAS))


async def test_steered_requests_reach_the_laptop_through_both_and_survive_the_loss_of_one(mesh):
    async with mesh.laptop("alice", "alice") as alice, mesh.traffic() as everyone:
        session = await alice.session()
        # Of the second replica's tunnel it waits some seconds only.
        await eventually(lambda: whole(mesh, session), "both replicas serve the session")
        for name in REPLICAS:
            await alice.said(f"the tunnel to {name} is up")
        before = await steered(mesh)
        assert [(await mesh.ask("alice"))["who"] for _ in range(40)] == [LAPTOP] * 40
        after = await steered(mesh)
        assert all(now - then >= 10 for now, then in zip(after, before, strict=True)), (before, after)
        for name in REPLICAS:
            agent = mesh.supervisor.agents[name]
            told = len(alice.errors)
            async with mesh.traffic("alice") as alices:
                os.killpg(agent.pid, signal.SIGKILL)
                await alice.said_since(told, f"the tunnel to {name} is lost")
                await alice.said_since(told, f"the tunnel to {name} is up")
                await eventually(lambda: whole(mesh, session), "both replicas serve the session again")
                await asyncio.sleep(0.3)
            # None failed; how many the cluster answered in the moment of the kill is no promise.
            assert set(alices) <= {LAPTOP, "checkout"}, alices
            before = await steered(mesh)
            assert [(await mesh.ask("alice"))["who"] for _ in range(40)] == [LAPTOP] * 40
            after = await steered(mesh)
            assert all(now - then >= 10 for now, then in zip(after, before, strict=True)), (before, after)
    assert set(everyone) == {"checkout"}
    assert (await mesh.ask("alice"))["who"] == "checkout"


async def test_a_session_that_starts_while_a_replica_is_down_gets_its_tunnel_when_it_comes(mesh):
    agent = mesh.supervisor.agents[REPLICAS[1]]
    os.killpg(agent.pid, signal.SIGSTOP)
    frozen = agent.pid
    try:
        async with mesh.laptop("alice", "alice") as alice:
            os.killpg(frozen, signal.SIGKILL)
            session = await alice.session()
            await eventually(lambda: whole(mesh, session), "both replicas serve the session")
            assert [(await mesh.ask("alice"))["who"] for _ in range(20)] == [LAPTOP] * 20
    finally:
        if agent.pid == frozen:
            os.killpg(frozen, signal.SIGCONT)


async def test_egress_goes_on_through_the_replica_that_is_left(mesh):
    async with mesh.laptop("alice", "alice"):
        agent = mesh.supervisor.agents[REPLICAS[0]]
        os.killpg(agent.pid, signal.SIGKILL)

        async def through():
            answer = await mesh.ask("alice", path="/call?url=http://inventory/")
            called = answer["answer"]  # a text where the replica that is gone was chosen
            return answer["who"] == LAPTOP and isinstance(called, dict) and called["who"] == "inventory"

        await eventually(through, "inventory is reached")
