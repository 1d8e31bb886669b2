"""The embedded mesh's list of protocols, through Istio's sidecars: answered by the cluster, and by the laptop."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import pytest

from tests.support.cluster.images import PYTHON
from tests.support.istio_mesh import SHOP, followed
from tests.support.mesh import eventually
from tests.support.protocols import GRPC, PROTOCOLS

pytestmark = [pytest.mark.timeout(240)]

ALL = sorted(PROTOCOLS)
CLUSTER, LAPTOP = "checkout", "laptop of alice"
HTTP_PORT, GRPC_PORT = "18080", "17070"


CALLERS_PROTOCOL = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "DestinationRule",
    "metadata": {"name": "checkout", "namespace": SHOP},
    "spec": {"host": "checkout", "trafficPolicy": {"connectionPool": {"http": {"useClientProtocol": True}}}},
}
"""Istio's sidecars speak HTTP/1.1 to a port that is called `http`, whatever the caller speaks, unless they are told."""


@pytest.fixture(scope="module")
async def entries(mesh):
    client = mesh.cluster.client
    await client.apply(CALLERS_PROTOCOL)
    await _scale(mesh, 1)  # some checks have a second request for where the first one is
    await eventually(lambda: _is_told(mesh), "the caller's sidecar has both")
    async with mesh.entry(port=80) as http, mesh.entry(port=7070) as grpc:
        yield {False: (http, "checkout"), True: (grpc, "checkout:7070")}
    await client.delete("DestinationRule", "checkout", SHOP)
    await _scale(mesh, 2)


async def _scale(mesh, replicas):
    await mesh.cluster.client.patch("Deployment", "checkout", {"spec": {"replicas": replicas}}, namespace=SHOP)
    await mesh.cluster.rolled_out("Deployment", "checkout", SHOP)
    await followed(mesh.cluster, SHOP, "checkout")


async def _is_told(mesh):
    """Whether the caller's sidecar speaks its callers' protocol at both ports, and leads to the one pod that is left."""
    [pod], caller = await mesh.cluster.pods(SHOP, "app=checkout"), await mesh.caller()
    names = {f"outbound|{port}||checkout.{SHOP}.svc.cluster.local" for port in (80, 7070)}
    dump = json.loads(await caller.envoy("/config_dump?resource=dynamic_active_clusters"))["configs"]
    found = {one["cluster"]["name"]: json.dumps(one) for one in dump if one["cluster"]["name"] in names}
    hosts = json.loads(await caller.envoy("/clusters?format=json"))["cluster_statuses"]
    addresses = {
        host["address"]["socket_address"]["address"]
        for one in hosts
        if one["name"] in names
        for host in one.get("host_statuses", [])
    }
    return (
        found.keys() == names
        and all("use_downstream_protocol_config" in text for text in found.values())
        and addresses == {pod.ip}
    )


@pytest.fixture(scope="module")
async def sessions(mesh, entries):
    """A session of alice's for each of checkout's ports, both of one process."""
    app = [PYTHON, "-m", "tests.support.cluster.app", LAPTOP]
    async with AsyncExitStack() as stack:
        start = ["run", "--env", "alice", "-n", SHOP, "--target"]
        first = await stack.enter_async_context(
            mesh.hairpin(
                "alice",
                *start,
                "checkout:80",
                "--port",
                HTTP_PORT,
                "--",
                *app,
                environment={"PORT": HTTP_PORT, "GRPC_PORT": GRPC_PORT},
            )
        )
        await first.said("takes the requests")
        second = await stack.enter_async_context(mesh.hairpin("alice", *start, "checkout:7070", "--port", GRPC_PORT))
        await second.said("takes the requests")
        # istiod has told the sidecars, of each port in its own time.
        await mesh.answered_by(LAPTOP, "alice")
        await eventually(lambda: _is_steered(entries), "gRPC is answered by the laptop")
        yield


async def _is_steered(entries):
    await check(entries, "grpc_unary", "alice", LAPTOP)
    return True


async def check(entries, name, environment, who):
    address, authority = entries[name in GRPC]
    await PROTOCOLS[name](address, authority, {"x-env": environment} if environment else {}, who)


@pytest.mark.parametrize("name", ALL)
async def test_steered(entries, sessions, name):
    await check(entries, name, "alice", LAPTOP)


@pytest.mark.parametrize("name", ALL)
async def test_unmatched_beside_a_session(entries, sessions, name):
    await check(entries, name, "bob", CLUSTER)
