"""A live sidecar that refuses the plumbing: `hairpin enable` takes it back and tells why, and nobody's request notices."""

from __future__ import annotations

import json

import pytest

from tests.support.istio_mesh import SHOP, operator
from tests.support.mesh import eventually
from tests.support.users_objects import beside, inbound_filter
from xds_server.generate.steer import match_filter_name

pytestmark = [pytest.mark.timeout(180)]

TARGET = "deployment/frontend:8080"
UNKNOWN = "someone.elses.Filter"
MATCH = match_filter_name(8080)
DISCOVERY = {
    "config_source": {"ads": {}, "resource_api_version": "V3"},
    "type_urls": [f"type.googleapis.com/{UNKNOWN}"],
}
SPOILER = inbound_filter(
    "spoiler",
    {"app": "frontend"},
    {"operation": "REPLACE", "value": {"name": MATCH, "config_discovery": DISCOVERY}},
    at=MATCH,
    priority=15,
)
"""Comes after the plumbing (10) and makes of it what no Envoy takes: a filter to be discovered, of a type it does not have."""


async def ours(mesh) -> set[str]:
    found = await mesh.cluster.client.list("EnvoyFilter", SHOP, labels="app.kubernetes.io/part-of=hairpin")
    return {one["metadata"]["name"] for one in found}


async def listener(mesh):
    """The inbound listener of frontend's sidecar, as the configuration dump has it."""
    pod = await mesh.caller()
    dump = json.loads(await pod.envoy("/config_dump?resource=dynamic_listeners"))
    [found] = [one for one in dump["configs"] if one["name"] == "virtualInbound"]
    return found


async def test_it_is_taken_back_and_told_and_traffic_goes_on(mesh):
    pod, before, was = await mesh.caller(), await ours(mesh), (await listener(mesh))["active_state"]
    rejections = await pod.stat("listener_manager.lds.update_rejected")
    async with beside(mesh, SPOILER), mesh.traffic(host="frontend", path="/cart", caller="inventory") as traffic:
        # With this exit code, or it would not raise; what was printed is in the error.
        with pytest.raises(AssertionError) as failed:
            await operator(mesh.cluster, "enable", TARGET, "-n", SHOP)
        said = str(failed.value).partition("\n-")[0]  # what the mesh's programs said comes after it
        assert f"shop/deployment/frontend:8080: the sidecar of pod {pod.name} refuses the plumbing: " in said
        assert UNKNOWN in said  # Envoy's own words
        assert "the plumbing is taken back" in said
        assert await pod.stat("listener_manager.lds.update_rejected") > rejections
        assert await ours(mesh) == before

        async def as_before():
            found = await listener(mesh)
            return "error_state" not in found and MATCH not in json.dumps(found)

        await eventually(as_before, "nothing of it is left in the sidecar")
        assert (await listener(mesh))["active_state"] == was
        enough = sum(traffic.values()) + 20

        async def more():
            return sum(traffic.values()) > enough

        await eventually(more, "requests go on")
    assert set(traffic) == {"frontend"}

    # Without it the same command has the plumbing in place.
    try:
        said = await operator(mesh.cluster, "enable", TARGET, "-n", SHOP)
        assert f"shop/{TARGET} is ready: the sidecar of pod {pod.name} has it" in said
        async with mesh.laptop("alice", "alice", target=TARGET):
            await mesh.answered_by("laptop of alice", "alice", host="frontend", caller="inventory")
    finally:
        await operator(mesh.cluster, "disable", TARGET, "-n", SHOP, "--force")
    assert await ours(mesh) == before
