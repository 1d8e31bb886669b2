"""A hundred sessions of one workload come and go; a match that Envoy would refuse takes nobody down."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from hairpin.certificates import new_key_and_request
from hairpin.model.session import Phase
from tests.support.cluster.users import ADMIN
from tests.support.istio_mesh import SHOP
from tests.support.many_laptops import WHO, many_laptops
from tests.support.mesh import PATIENCE, eventually
from xds_server.generate.steer import match_filter_name

pytestmark = [pytest.mark.timeout(300)]

CLUSTER = "checkout"
ENVIRONMENTS = [f"env-{number}" for number in range(100)]
CHANGES = ("listener_modified", "listener_added", "listener_removed", "listener_in_place_updated")
"""What Envoy counts when a listener changes. `lds.update_success` counts answers: istiod sends the same listeners again and again."""
CONTAINER_PORT = 8080


async def listener_changes(pods):
    return {pod.name: [await pod.stat(f"listener_manager.{name}") for name in CHANGES] for pod in pods}


async def rules(pod):
    """The sessions that a sidecar judges by."""
    found = json.loads(await pod.envoy("/config_dump?resource=ecds_filters")).get("configs", [])
    for entry in found:
        if entry["ecds_filter"]["name"] == match_filter_name(CONTAINER_PORT):
            return set(entry["ecds_filter"]["typed_config"].get("shadow_rules", {}).get("policies", {}))
    return set()


async def has_rules(pods, number):
    async def so():
        return [len(await rules(pod)) for pod in pods] == [number] * len(pods)

    await eventually(so, f"each sidecar has {number} rules")


@pytest.fixture
async def streams(mesh):
    """Two WebSockets through frontend's sidecar, one to the cluster and one to bob's laptop, each proven alive by an echo."""
    place = await mesh.caller()
    async with (
        mesh.laptop("bob", "bob"),
        place.session(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.ws_connect("http://checkout/ws") as unmatched,
        session.ws_connect("http://checkout/ws", headers={"x-env": "bob"}) as steered,
    ):
        assert [(await stream.receive_json())["who"] for stream in (unmatched, steered)] == [CLUSTER, "laptop of bob"]

        async def alive():
            for stream in (unmatched, steered):
                await stream.send_str("still there")
                assert await asyncio.wait_for(stream.receive_str(), PATIENCE) == "still there"

        yield alive


async def test_a_hundred_sessions_come_and_go_and_no_listener_changes(mesh, streams, tmp_path):
    pods = await mesh.cluster.pods(SHOP, "app=checkout")
    assert len(pods) == 2
    before = await listener_changes(pods)
    pushes = [await pod.stat("listener_manager.lds.update_success") for pod in pods]
    async with mesh.traffic() as others, many_laptops(mesh.cluster, tmp_path) as many:
        await many.claim(ENVIRONMENTS)
        async with many.tunnels():
            await many.reach(Phase.READY)
            for number, session in enumerate(many.claimed):
                await many.listen(session)
                await has_rules(pods, number + 2)  # bob's too
            await many.reach(Phase.ACTIVE)
            answers = [await mesh.ask(environment) for environment in ENVIRONMENTS]
            assert {answer["who"] for answer in answers} == {WHO}
            assert [answer["headers"]["x-env"] for answer in answers] == ENVIRONMENTS
            await streams()
            for session in list(many.claimed):
                await many.end(session)
                await has_rules(pods, len(many.claimed) + 1)
            assert {(await mesh.ask(environment))["who"] for environment in ENVIRONMENTS} == {CLUSTER}
        await streams()
    after = await listener_changes(pods)
    resent = [
        await pod.stat("listener_manager.lds.update_success") - old for pod, old in zip(pods, pushes, strict=True)
    ]
    print(f"{CHANGES}: {before} before, {after} after; pushes of the same listeners {resent}; meanwhile {dict(others)}")
    assert after == before
    assert set(others) == {CLUSTER}


async def test_a_match_that_envoy_would_refuse_is_refused_by_name_and_takes_no_rule_down(mesh):
    """By `hairpin run`; and by the controller, for who writes the object by hand."""
    pods = await mesh.cluster.pods(SHOP, "app=checkout")
    bad = "(?=a)b"
    async with mesh.laptop("alice", "alice") as alice, mesh.traffic("alice") as steered, mesh.traffic() as others:
        session = await alice.session()
        await has_rules(pods, 1)
        before = [await rules(pod) for pod in pods]
        assert before == [{f"{session}.{SHOP}"}] * 2
        flags = ["--match", f"header x-user~'{bad}'", "--target", "checkout:http", "-n", SHOP]
        refused = await mesh.command("bob", "run", *flags, "--", "sleep", "9")
        assert refused.process.returncode != 0
        assert "--match" in (said := "\n".join(refused.errors)) and bad in said
        try:
            await mesh.cluster.client.create(by_hand("bad", {"header": {"name": "x-user", "regex": bad}}))
            found = await mesh.cluster.client.wait_for(
                "Session", "bad", lambda s: s.get("status", {}).get("phase") == "Refused", namespace=SHOP
            )
            assert bad in str(found["status"]["conditions"])
            async with mesh.laptop("carol", "carol"):
                assert (await mesh.ask("carol"))["who"] == "laptop of carol"
                assert (await mesh.ask("alice"))["who"] == "laptop of alice"
        finally:
            await mesh.cluster.client.delete("Session", "bad", SHOP)
    assert set(steered) == {"laptop of alice"}
    assert set(others) == {CLUSTER}


def by_hand(name, match):
    """A Session as someone without `hairpin run` may write it; a key of its own is all that a request for a certificate needs."""
    _, request = new_key_and_request()
    spec = {
        "owner": ADMIN,
        "target": {"kind": "service", "name": CLUSTER, "namespace": SHOP, "port": "http"},
        "environment": name,
        "match": match,
        "mode": "steal",
        "certificateRequest": request,
        "localPort": 3000,
        "leaseSeconds": 10,
    }
    metadata = {"name": name, "namespace": SHOP}
    return {"apiVersion": "hairpin.dev/v1alpha1", "kind": "Session", "metadata": metadata, "spec": spec}
