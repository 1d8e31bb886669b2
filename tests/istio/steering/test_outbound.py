"""Delivery to callers' sidecars in a real mesh: routes alone, no listener changes, at the target's nor at the callers'."""

from __future__ import annotations

import json
import signal

import pytest

from tests.support.istio_mesh import SHOP, drained, enable, install, operator
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

CLUSTER, LAPTOP = "checkout", "laptop of alice"
LISTENERS = ("listener_manager.listener_modified", "listener_manager.listener_in_place_updated")


async def written(mesh) -> set[str]:
    found = await mesh.cluster.client.list("EnvoyFilter", SHOP, labels="app.kubernetes.io/part-of=hairpin")
    return {one["metadata"]["name"] for one in found}


@pytest.fixture(scope="module")
async def outbound(mesh):
    """The same mesh with its delivery changed, and changed back at the end."""
    before = await written(mesh)
    await install(mesh.cluster, "--delivery", "outbound")

    async def without():
        return not await written(mesh)

    await eventually(without, "the plumbing of the other delivery is taken out")
    await eventually(lambda: bare(mesh), "no sidecar's listener has it any more")
    await drained(await pods_of(mesh))
    yield mesh
    await install(mesh.cluster, "--delivery", "inbound")
    await enable(mesh.cluster)

    async def as_before():
        return await written(mesh) >= before

    await eventually(as_before, "the plumbing is back")
    # Whoever comes next is not to have a connection closed by it.
    await drained([*await pods_of(mesh), *await mesh.cluster.pods(SHOP, "app=inventory")])


async def pods_of(mesh):
    return [*await mesh.cluster.pods(SHOP, "app=checkout"), *await mesh.cluster.pods(SHOP, "app=frontend")]


async def bare(mesh) -> bool:
    """Whether nothing of hairpin's is in an inbound listener: what is drained stays in the dump for a while, and is left out."""
    for pod in await pods_of(mesh):
        dump = json.loads(await pod.envoy("/config_dump?resource=dynamic_listeners"))
        [found] = [one for one in dump["configs"] if one["name"] == "virtualInbound"]
        if "hairpin" in json.dumps({**found, "draining_state": None}):
            return False
    return True


async def counters(mesh) -> list[int]:
    return [await pod.stat(name) for pod in await pods_of(mesh) for name in LISTENERS]


async def test_callers_sidecars_steer_and_nobodys_listener_changes(outbound):
    before = await counters(outbound)
    async with outbound.traffic() as others, outbound.laptop("alice", "alice", "--lease", "5") as run:
        assert await written(outbound) == {"hairpin-outbound-service-checkout-80"}
        steered = [await outbound.ask("alice") for _ in range(8)]
        beside = [await outbound.ask(environment) for environment in [None, "bob"] * 8]
        assert {answer["who"] for answer in steered} == {LAPTOP}
        assert {answer["who"] for answer in beside} == {CLUSTER}
        assert len({answer["pod"] for answer in beside}) == 2
        # No sidecar of the target's, so nobody there who would say whose request it is.
        assert "x-forwarded-client-cert" not in steered[0]["headers"]
        # Two hops from where it came in.
        assert (await outbound.ask("alice", host="frontend", caller="inventory"))["next"]["who"] == LAPTOP
        async with outbound.traffic("alice") as matched:
            run.signal(signal.SIGKILL)
            await outbound.answered_by(CLUSTER, "alice")
    assert set(matched) <= {LAPTOP, CLUSTER}
    assert set(others) == {CLUSTER}
    assert await counters(outbound) == before


async def test_what_no_route_can_say_is_refused_with_the_delivery_that_can(outbound):
    words = ("run", "--match", "not header x-a=1", "--target", "checkout:http", "-n", SHOP, "--", "sleep", "9")
    run = await outbound.command("bob", *words)
    assert run.process.returncode != 0
    assert "which no route can say" in run.error
    assert "delivery: inbound" in run.error


async def test_there_is_nothing_to_enable(outbound):
    with pytest.raises(AssertionError, match="its delivery is outbound, which changes no listener"):
        await operator(outbound.cluster, "enable", "checkout:http", "-n", SHOP)
