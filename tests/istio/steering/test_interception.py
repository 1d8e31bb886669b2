"""`hairpin run` beside a real mesh, as an ordinary user: any program's names are the pod's, its connections the mesh's."""

from __future__ import annotations

import json

import pytest

from tests.support.cluster.images import PYTHON
from tests.support.cluster.names import Resolver
from tests.support.cluster.pods import DNS
from tests.support.istio_mesh import SHOP, followed
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

HEADLESS = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "checkout-pods", "namespace": SHOP},
    "spec": {"clusterIP": "None", "selector": {"app": "checkout"}, "ports": [{"name": "http", "port": 8080}]},
}
# Nothing here knows of proxies.
PROGRAM = """
import http.client, json, os, socket, time
def addresses(name):
    try:
        return sorted({found[4][0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        return error.errno == socket.EAI_NONAME
def get(host):
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", "/")
    peer = connection.sock.getpeername()[0]
    response = connection.getresponse()
    return {"peer": peer, "status": response.status, "answer": response.read().decode()}
names = "inventory", "inventory.shop", "inventory.shop.svc.cluster.local", "checkout-pods", "nobody"
print(json.dumps({
    "uid": os.getuid(), "capabilities": [l for l in open("/proc/self/status") if l.startswith("CapEff")][0].split()[1],
    "proxies": [name for name in os.environ if name.lower().endswith("_proxy")],
    "names": {name: addresses(name) for name in names}, "inventory": get("inventory"),
}), flush=True)
time.sleep(60)  # until the line about its connection is there
"""


@pytest.fixture
async def headless(mesh):
    """The mesh with a Service that has no address of its own."""
    await mesh.cluster.client.apply(HEADLESS)
    await followed(mesh.cluster, SHOP, "checkout-pods")
    caller = await mesh.cluster.pod(SHOP, "app=frontend")

    async def named():
        found = await Resolver(caller.network, DNS, SHOP).resolve("checkout-pods")
        return len(found) == len(await mesh.cluster.pods(SHOP, "app=checkout"))

    await eventually(named, "the cluster's DNS has heard of it")
    yield mesh
    await mesh.cluster.client.delete("Service", "checkout-pods", SHOP)


async def test_names_and_connections_are_the_pods_for_an_ordinary_user(headless):
    service = await headless.cluster.client.get("Service", "inventory", SHOP)
    pods = await headless.cluster.client.list("Pod", SHOP, "app=checkout")
    async with headless.hairpin("alice", "run", "--mode", "egress", "-n", SHOP, "--", PYTHON, "-c", PROGRAM) as run:

        async def printed():
            return run.output

        await run.said(r"<- inventory:80 \(10\.[\d.]+\) \d+ B out, ")
        await eventually(printed, "the program has said what it found")
    found = json.loads(run.output[-1])
    assert found["uid"] != 0
    assert int(found["capabilities"], 16) == 0
    assert found["proxies"] == []
    inventory = [service["spec"]["clusterIP"]]
    assert found["names"] == {
        "inventory": inventory,
        "inventory.shop": inventory,
        "inventory.shop.svc.cluster.local": inventory,
        "checkout-pods": sorted(pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"]),
        "nobody": True,
    }
    assert (found["inventory"]["peer"], found["inventory"]["status"]) == (*inventory, 200), found["inventory"]
    # By its sidecar, under mutual TLS, from the agent.
    caller = json.loads(found["inventory"]["answer"])["headers"]["x-forwarded-client-cert"]
    assert "URI=spiffe://cluster.local/ns/shop/sa/hairpin-agent" in caller
