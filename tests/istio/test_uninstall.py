"""`hairpin uninstall` in a real mesh that people used: every object of the API server, and every word of its sidecars.

It takes hairpin out of the mesh that the tests of `steering` share. They come before it.
"""

from __future__ import annotations

import asyncio
import copy
import json

import pytest

from tests.support.istio_mesh import DEVELOPERS, SHOP, IstioMesh, install, operator
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(400)]

CLUSTER, LAPTOP = "checkout", "laptop of alice"

MOVING_KINDS = {"Event"}
"""What the API server keeps for an hour, and nobody reads back."""
MOVING_FIELDS = {
    "": (("metadata", "resourceVersion"), ("metadata", "managedFields")),
    "Lease": (("spec", "renewTime"),),
    "Node": (("status", "conditions"),),
    "APIService": (("status",),),
    "ConfigMap": (("metadata", "annotations", "control-plane.alpha.kubernetes.io/leader"),),
}
"""What Kubernetes writes all the time in objects that are otherwise the same; the first are every kind's. istiod renews its
own leases in annotations of ConfigMaps."""
IMAGES = "hairpin.test/"
"""What the tests' own images are called."""


async def everything(client):
    """Every object of every kind that the API server has, without what moves by itself."""
    found = {}
    for document in await client.everything():
        kind, metadata = document["kind"], document["metadata"]
        if kind not in MOVING_KINDS:
            key = f"{document['apiVersion']} {kind} {metadata.get('namespace', '')}/{metadata['name']}"
            found[key] = without(document, (*MOVING_FIELDS[""], *MOVING_FIELDS.get(kind, ())))
    return found


def without(document, fields):
    document = copy.deepcopy(document)
    for *above, name in fields:
        holder = document
        for part in above:
            holder = holder.get(part, {})
        holder.pop(name, None)
    return document


def differences(before, after):
    """The objects that are gone, new or not the same."""
    names = sorted(before.keys() | after.keys())
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def mentions(found):
    """The objects with hairpin's name anywhere in them."""
    return [name for name, document in found.items() if "hairpin" in json.dumps(document).replace(IMAGES, "")]


async def settled(client):
    """Everything, once two looks a second apart are the same, and nothing is about to go: what was deleted takes its dependents
    along, and a namespace of an earlier test's may take a while.
    """
    for _ in range(60):
        before = await everything(client)
        await asyncio.sleep(1)
        after = await everything(client)
        moving = differences(before, after)
        ending = [name for name, found in after.items() if "deletionTimestamp" in found["metadata"]]
        if not moving and not ending:
            return after
    raise AssertionError(moving, ending)


async def words(pods):
    """The pods whose sidecars know hairpin's name: in listeners, routes, clusters, endpoints, extensions, statistics."""
    found = []
    for pod in pods:
        for page in ("/config_dump?include_eds", "/clusters", "/listeners"):
            lines = (await pod.envoy(page)).replace(IMAGES, "").splitlines()
            found += [(pod.name, page, line.strip()[:200]) for line in lines if "hairpin" in line]
    return found


@pytest.fixture
async def untouched(shop):
    """The shop in a mesh that hairpin is not in, whoever had it there before."""
    await operator(shop, "uninstall")
    await shop.client.delete("RoleBinding", DEVELOPERS["metadata"]["name"], SHOP)
    return shop


async def test_nothing_is_left_of_what_was_used(untouched):
    cluster, mesh = untouched, IstioMesh(untouched)
    before = await settled(cluster.client)
    assert mentions(before) == []
    pods = await cluster.pods(SHOP)

    await install(cluster, "--identity", "inventory")
    await cluster.client.apply(DEVELOPERS, *made_by_people())
    await operator(cluster, "enable", "inventory", "-n", SHOP)
    async with mesh.laptop("alice", "alice", following="http://inventory/"):
        assert (await mesh.ask("alice"))["who"] == LAPTOP
    async with (
        mesh.laptop("alice", "alice") as run,
        mesh.laptop("bob", "bob", "--identity", "target", target="inventory"),
        mesh.traffic() as others,
        mesh.traffic("alice") as steered,
    ):
        assert len(mentions(await everything(cluster.client))) > 50
        assert await words(pods)
        told = await operator(cluster, "uninstall")
        assert await run.ended() != 0
        await mesh.answered_by(CLUSTER, "alice")
    assert set(others) == {CLUSTER}
    assert set(steered) == {LAPTOP, CLUSTER}
    assert "nothing of hairpin is left" in told
    assert f"RoleBinding {SHOP}/developers is yours and stays" in told

    await cluster.client.delete("RoleBinding", DEVELOPERS["metadata"]["name"], SHOP)
    after = await settled(cluster.client)
    assert differences(before, after) == []

    async def forgotten():
        return not await words(pods)

    try:
        await eventually(forgotten, "no sidecar has a word of hairpin")
    except AssertionError as error:
        error.add_note(str(await words(pods)))
        raise
    assert [pod.name for pod in await cluster.pods(SHOP)] == [pod.name for pod in pods]


def made_by_people():
    """An environment and an egress policy, as operators write them."""
    hairpins = {"apiVersion": "hairpin.dev/v1alpha1"}
    policy = {
        "default": "Allow",
        "rules": [{"action": "Deny", "cidrs": ["10.9.0.0/16"], "reason": "that is production"}],
    }
    return (
        {**hairpins, "kind": "Environment", "metadata": {"name": "alice"}, "spec": {"members": ["alice"]}},
        {**hairpins, "kind": "EgressPolicy", "metadata": {"name": "default", "namespace": SHOP}, "spec": policy},
    )
