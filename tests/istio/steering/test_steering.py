"""Who answers in a real mesh: the environment's requests the laptop, all others every pod of the service."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import pytest

from tests.support.istio_mesh import SHOP
from tests.support.mesh import PATIENCE, eventually

pytestmark = [pytest.mark.timeout(180)]

CLUSTER, LAPTOP = "checkout", "laptop of alice"
SPIFFE = "spiffe://cluster.local/ns/shop/sa/"


async def test_an_environments_requests_reach_the_laptop_and_all_others_every_pod(mesh):
    async with mesh.laptop("alice", "alice"):
        steered = [await mesh.ask("alice") for _ in range(20)]
        others = [await mesh.ask(environment) for environment in [None, "bob", "alice2"] * 20]
    assert {answer["who"] for answer in steered} == {LAPTOP}
    assert {answer["who"] for answer in others} == {CLUSTER}
    pods = {pod.name for pod in await mesh.cluster.pods(SHOP, "app=checkout")}
    assert len(pods) == 2
    assert {answer["pod"] for answer in others} == pods


async def test_the_process_learns_who_called_and_calls_on_through_the_mesh(mesh):
    """Its caller's SPIFFE identity is in the header; its own call to inventory arrives as the agent."""
    async with mesh.laptop("alice", "alice", following="http://inventory/"):
        answer = await mesh.ask("alice")
    assert answer["who"] == LAPTOP
    assert f"URI={SPIFFE}frontend" in answer["headers"]["x-forwarded-client-cert"]
    assert answer["next"]["who"] == "inventory"
    assert answer["next"]["headers"]["x-env"] == "alice"
    assert f"URI={SPIFFE}hairpin-agent" in answer["next"]["headers"]["x-forwarded-client-cert"]


async def test_whoever_sends_them(mesh):
    """A call by frontend's own process, two hops from where it came in."""
    async with mesh.laptop("alice", "alice"):
        answer = await mesh.ask("alice", host="frontend", caller="inventory")
    assert answer["who"] == "frontend"
    assert answer["next"]["who"] == LAPTOP


async def test_an_authorization_policy_that_refuses_anyone_else(mesh):
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "inventory", "namespace": SHOP},
        "spec": {
            "selector": {"matchLabels": {"app": "inventory"}},
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/hairpin-agent"]}}]}],
        },
    }
    await mesh.cluster.client.apply(policy)
    try:

        async def refused():
            place = await mesh.caller()
            return (await place.request("http://inventory/")).status == 403

        await eventually(refused, "frontend is refused by inventory")
        async with mesh.laptop("alice", "alice", following="http://inventory/"):
            assert (await mesh.ask("alice"))["next"]["who"] == "inventory"
    finally:
        await mesh.cluster.client.delete("AuthorizationPolicy", "inventory", SHOP)


async def test_ended_by_ctrl_c_everything_is_given_back(mesh):
    async with mesh.laptop("alice", "alice") as run:
        session = await run.session()
        assert await run.end() == 0  # the process's own
        assert "everything is given back" in "\n".join(run.errors)
        await mesh.answered_by(CLUSTER, "alice")
        assert await mesh.cluster.client.get("Session", session, SHOP) is None


async def test_killed_the_cluster_answers_and_the_session_ends(mesh):
    async with mesh.laptop("alice", "alice", "--lease", "3") as run, mesh.traffic() as others:
        session = await run.session()
        assert (await mesh.ask("alice"))["who"] == LAPTOP
        run.signal(signal.SIGKILL)
        await mesh.answered_by(CLUSTER, "alice")

        async def gone():
            return await mesh.cluster.client.get("Session", session, SHOP) is None

        await eventually(gone, "the session has ended")
    assert set(others) == {CLUSTER}


async def test_the_same_requests_cant_be_held_twice(mesh):
    async with mesh.laptop("alice", "alice"):
        second = await mesh.command(
            "bob", "run", "--env", "alice", "--target", "checkout:http", "-n", SHOP, "--", "sleep", "9"
        )
        assert second.process.returncode != 0
        assert "alice" in second.error
        assert "held already" in second.error
        assert (await mesh.ask("alice"))["who"] == LAPTOP
        async with mesh.laptop("bob", "bob"):
            assert (await mesh.ask("bob"))["who"] == "laptop of bob"
            assert (await mesh.ask("alice"))["who"] == LAPTOP


async def test_egress_only_writes_no_route(mesh):
    async def filters():
        return {found["metadata"]["name"] for found in await mesh.cluster.client.list("EnvoyFilter", SHOP)}

    before = await filters()
    async with mesh.hairpin("carol", "run", "--mode", "egress", "-n", SHOP, "--", "sleep", "30") as run:
        port = await run.egress_port()
        async with mesh.cluster.outside.session() as session:
            url, proxy = "http://inventory/", f"http://127.0.0.1:{port}"
            async with session.get(url, proxy=proxy) as response:
                answer = await response.json(content_type=None)
        assert answer["who"] == "inventory"
        assert f"URI={SPIFFE}hairpin-agent" in answer["headers"]["x-forwarded-client-cert"]
        assert await filters() == before


async def test_sessions_come_and_go_without_a_change_of_the_listener(mesh):
    """With the plumbing in place; a stream that is open throughout stays open."""
    async with mesh.laptop("alice", "alice"):
        pass
    pods = await mesh.cluster.pods(SHOP, "app=checkout")
    names = ("listener_manager.listener_modified", "listener_manager.listener_added")
    before = [[await pod.stat(name) for name in names] for pod in pods]
    place = await mesh.caller()
    async with place.session(timeout=aiohttp.ClientTimeout(total=None)) as session:
        async with session.get("http://checkout/sse?n=0&interval=100") as stream:
            assert stream.status == 200
            assert await stream.content.readline()
            for user in ("alice", "bob", "alice"):
                async with mesh.laptop(user, user):
                    assert (await mesh.ask(user))["who"] == f"laptop of {user}"
            await asyncio.wait_for(stream.content.readline(), PATIENCE)
    assert [[await pod.stat(name) for name in names] for pod in pods] == before


async def test_a_request_held_at_a_breakpoint_waits_as_long_as_its_caller(mesh):
    async with mesh.laptop("alice", "alice"):
        held = asyncio.ensure_future(mesh.ask("alice", path="/hold?key=b", method="POST"))  # noqa: TID251
        assert (await mesh.ask("alice", path="/held?key=b&n=1"))["held"] == 1
        await asyncio.sleep(17)  # Envoy gives a route 15 s unless it is told otherwise
        assert not held.done()
        await mesh.ask("alice", path="/release?key=b")
        assert (await held)["who"] == LAPTOP
