"""`hairpin run` in a real mesh: what it tells, and that what breaks under it comes back by itself."""

from __future__ import annotations

import re

import pytest

from tests.support.istio_mesh import SHOP
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

CLUSTER, LAPTOP = "checkout", "laptop of alice"
RUN = ("run", "--env", "alice", "--target", "deployment/checkout:web", "-n", SHOP)


async def test_requests_get_a_line_each_and_the_cluster_is_named(mesh):
    async with mesh.laptop("alice", "alice", following="http://inventory/") as run:
        await mesh.answered_by(LAPTOP, "alice")
        for number in range(4):
            await mesh.ask("alice", path=f"/cart/{number}")
        for number in range(4):
            await run.said(rf"-> GET checkout/cart/{number} 200 \d+ ms$")
        # Said when a connection is over, by another than who says the former.
        await run.said(r"<- inventory:80 \(10\.[\d.]+\) \d+ B out, [\d.]+ k?B in, \d+ ms")
    told = "\n".join(run.errors)
    assert re.search(r"context test \(https://[\d.]+:6443\), namespace shop\n", told)
    assert re.search(r"session checkout-alice-\w{5}: requests of shop/\S+:8080 where environment alice\n", told)
    assert "is lost" not in told


async def test_an_agent_that_is_replaced_gets_its_tunnel_again(mesh):
    async with mesh.laptop("alice", "alice") as run:
        start = len(run.errors)
        await mesh.cluster.client.delete("Pod", "hairpin-agent-0", SHOP)
        await run.said_since(start, "the tunnel to hairpin-agent-0 is lost")
        await run.said_since(start, "the tunnel to hairpin-agent-0 is up")
        await mesh.cluster.rolled_out("StatefulSet", "hairpin-agent", SHOP)
        await mesh.answered_by(LAPTOP, "alice")
        assert not [line for line in run.errors[start:] if "may not connect" in line or "replaces" in line]


async def test_more_replicas_of_the_agent_get_tunnels_of_their_own(mesh):
    scale = {"spec": {"replicas": 3}}
    async with mesh.laptop("alice", "alice") as run:
        try:
            await mesh.cluster.client.patch("StatefulSet", "hairpin-agent", scale, namespace=SHOP)
            await run.said("the tunnel to hairpin-agent-2 is up")
            await mesh.cluster.rolled_out("StatefulSet", "hairpin-agent", SHOP)
            await mesh.answered_by(LAPTOP, "alice")
        finally:
            scale["spec"]["replicas"] = 2
            await mesh.cluster.client.patch("StatefulSet", "hairpin-agent", scale, namespace=SHOP)
            await mesh.cluster.client.wait_gone("Pod", "hairpin-agent-2", namespace=SHOP, seconds=60)
        await mesh.answered_by(LAPTOP, "alice")


async def test_an_api_server_that_restarts_costs_no_session(mesh):
    async with mesh.laptop("alice", "alice") as run:
        session = await run.session()
        start = len(run.errors)
        mesh.cluster.programs.restart("kube-apiserver")
        await run.said_since(start, "the API server at .* can't be reached")
        await mesh.cluster.plane.ready(mesh.cluster.client)
        await run.said_since(start, "the tunnel to hairpin-agent-[01] is up")
        await mesh.answered_by(LAPTOP, "alice")
        assert run.process.returncode is None
        assert (await mesh.cluster.client.get("Session", session, SHOP))["spec"]["owner"] == "alice"
        assert not [
            line for line in run.errors[start:] if "may not" in line or "not installed" in line or "gone" in line
        ]


async def test_kubectl_forwards_as_well(mesh):
    async with mesh.laptop("alice", "alice", "--port-forward", "kubectl", following="http://inventory/"):
        answer = await mesh.ask("alice")
    assert (answer["who"], answer["next"]["who"]) == (LAPTOP, "inventory")


async def test_who_is_refused_is_told_why_with_an_exit_code(mesh):
    async with mesh.laptop("alice", "alice"):
        held = await mesh.command("bob", *RUN, "--", "true")
        assert held.process.returncode == 4
        assert "alice" in held.error
    unknown = await mesh.command("bob", "run", "--env", "bob", "-t", "deployment/chekout", "-n", SHOP, "--", "true")
    assert unknown.process.returncode == 3
    assert "checkout" in unknown.error
    nobody = await mesh.command("mallory", *RUN, "--", "true")
    assert nobody.process.returncode == 1
    assert "hairpin-developer" in nobody.error
    sessions = await mesh.cluster.client.list("Session", SHOP)
    assert sessions == []


async def test_an_egress_policy_is_told_and_holds(mesh):
    rules = [
        {"action": "Deny", "hosts": ["inventory.shop.svc.cluster.local"], "reason": "ask the frontend"},
        {"action": "Allow", "owners": ["bob"]},
    ]
    metadata = {"name": "default", "namespace": SHOP}
    policy = {"apiVersion": "hairpin.dev/v1alpha1", "kind": "EgressPolicy", "metadata": metadata}
    await mesh.cluster.client.apply(policy | {"spec": {"rules": rules, "default": "Allow"}})
    try:
        async with mesh.laptop("alice", "alice", following="http://inventory/") as run:
            answer = await mesh.ask("alice")
            assert "who" not in str(answer["next"])
            await run.said(
                r"calls go where .* rule 1 \(Deny inventory.shop.svc.cluster.local\), ask the frontend; else Allow"
            )
            await run.said(r"<- inventory:80 \(10\.[\d.]+\) \(refused: .*ask the frontend")
            assert "rule 2" not in "\n".join(run.errors)  # bob's
            # A change holds at once, for the sessions that there are.
            await mesh.cluster.client.delete("EgressPolicy", "default", SHOP)

            async def allowed():
                return "who" in str((await mesh.ask("alice"))["next"])

            await eventually(allowed, "inventory answers")
    finally:
        await mesh.cluster.client.delete("EgressPolicy", "default", SHOP)


async def test_a_session_that_someone_ends_ends_the_run(mesh):
    async with mesh.laptop("alice", "alice") as run:
        session = await run.session()
        ended = await mesh.command("alice", "stop", session, "-n", SHOP)
        assert ended.process.returncode == 0
        assert await run.ended() == 1
        assert f"session {session} was ended from elsewhere" in run.error

        async def given_back():
            return (await mesh.ask("alice"))["who"] == CLUSTER

        await eventually(given_back, "the cluster answers")
