"""Agents at an address that the operators publish: laptops dial it, and developers may not even port-forward."""

from __future__ import annotations

import contextlib
import re

import pytest

from tests.support.cluster.client import ApiError
from tests.support.cluster.host import GATEWAY
from tests.support.istio_mesh import SHOP, install
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(300)]

LAPTOP, INVENTORY = "laptop of alice", "http://inventory/"
SPIFFE = "spiffe://cluster.local/ns/shop/sa/"
DOMAIN = "agents.example.com"
ADDRESSES = {"hairpin-agent-0": "203.0.113.10", "hairpin-agent-1": "203.0.113.11"}
"""What the load balancers have: no place on any network here but kube-proxy's rules."""
AS_CHECKOUT = {"hairpin-agent-as-checkout-0": "203.0.113.20", "hairpin-agent-as-checkout-1": "203.0.113.21"}


def service(pod, kind, ports):
    """As docs/install.md has it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{pod}-laptops", "namespace": SHOP},
        "spec": {"type": kind, "selector": {"statefulset.kubernetes.io/pod-name": pod}, "ports": ports},
    }


@contextlib.asynccontextmanager
async def published(mesh, address, *services, flags=()):
    """hairpin with this published address, and the operators' Services for it; those are gone afterwards."""
    client = mesh.cluster.client
    try:
        await client.apply(*services)
        await install(mesh.cluster, "--published-address", address, *flags)
        yield
    finally:
        for found in services:
            await client.delete("Service", found["metadata"]["name"], SHOP)


@pytest.fixture(scope="module", autouse=True)
async def unpublished(mesh):
    """All as before once the module is over: each test here installs what it needs."""
    yield
    await install(mesh.cluster)
    await mesh.cluster.rolled_out("StatefulSet", "hairpin-agent", SHOP)


@contextlib.contextmanager
def names_of(mesh, addresses):
    """The names that operators gave them, as the laptop's system knows them."""
    host = mesh.cluster.host
    file = host.private / "hosts"
    lines = [f"{address} {pod}.{DOMAIN}\n" for pod, address in addresses.items()]
    host.inside(file).write_text("127.0.0.1 localhost\n" + "".join(lines))
    host.run("mount", "--bind", str(file), "/etc/hosts")
    try:
        yield
    finally:
        host.run("umount", "--lazy", "/etc/hosts")  # whoever reads it just now


async def may_not_forward(mesh):
    """The developer who holds sessions has no way through the API server to any pod."""
    async with mesh.cluster.client_of("alice") as alice:

        async def rules():
            review = {"spec": {"namespace": SHOP}, "apiVersion": "authorization.k8s.io/v1"}
            path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
            answer = await alice.request("POST", path, review | {"kind": "SelfSubjectRulesReview"})
            return {name for rule in answer["status"]["resourceRules"] for name in rule["resources"]}

        async def taken_away():
            return not {"pods", "pods/portforward"} & await rules()

        await eventually(taken_away, "the role has no port-forward")
        assert "sessions" in await rules()
        path = f"/api/v1/namespaces/{SHOP}/pods/hairpin-agent-0/portforward"
        for method, verb in (("POST", "create"), ("GET", "get")):
            with pytest.raises(ApiError, match=f'cannot {verb} resource "pods/portforward"'):
                await alice.request(method, path, query={"ports": "9443"})


async def hosts(mesh, run):
    """Where the session says that its agents are."""
    status = (await mesh.cluster.client.get("Session", await run.session(), SHOP))["status"]
    return {agent["name"]: (agent["host"], agent["tunnelPort"], agent["egressPort"]) for agent in status["agents"]}


async def holds(mesh, agents, *flags, account="hairpin-agent"):
    """A session there: matched requests reach the laptop, its calls the mesh, and no way is through the API server."""
    async with mesh.laptop("alice", "alice", *flags, following=INVENTORY) as run:
        assert await hosts(mesh, run) == agents
        for name in agents:
            await run.said(f"the tunnel to {name} is up")
        answers = [await mesh.ask("alice") for _ in range(20)]
        place, others = await mesh.caller(), await mesh.ask()
        programs = mesh.cluster.programs
        programs["kube-apiserver"].kill()
        try:
            away = [await place.request("http://checkout/", headers={"x-env": "alice"}) for _ in range(20)]
        finally:
            programs.again("kube-apiserver")
            await mesh.cluster.plane.ready(mesh.cluster.client)
        answers += [response.json for response in away]
    assert others["who"] == "checkout"
    assert {(answer["who"], answer["next"]["who"]) for answer in answers} == {(LAPTOP, "inventory")}
    for answer in answers:
        assert f"URI={SPIFFE}{account}" in answer["next"]["headers"]["x-forwarded-client-cert"]
    assert not re.search(r"port-forward|is lost", run.error)


async def test_a_node_port_for_the_one_agent(mesh):
    ports = [
        {"name": "tls-tunnel", "port": 9443, "nodePort": 30443},
        {"name": "tls-egress", "port": 9444, "nodePort": 30444},
    ]
    node_port = service("hairpin-agent-0", "NodePort", ports)
    async with published(mesh, f"{GATEWAY}:30443:30444", node_port, flags=("--agents", "1")):
        await may_not_forward(mesh)
        await holds(mesh, {"hairpin-agent-0": (GATEWAY, 30443, 30444)})


async def test_a_load_balancer_and_a_name_for_each_agent_and_those_of_the_target(mesh):
    ports = [{"name": "tls-tunnel", "port": 9443}, {"name": "tls-egress", "port": 9444}]
    addresses = {**ADDRESSES, **AS_CHECKOUT}
    services = [service(pod, "LoadBalancer", ports[pod in AS_CHECKOUT :]) for pod in addresses]
    async with published(mesh, f"{{pod}}.{DOMAIN}", *services, flags=("--identity", "checkout")):
        for pod, address in addresses.items():  # as a cloud's controller does
            status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
            await mesh.cluster.client.patch("Service", f"{pod}-laptops", status, namespace=SHOP, subresource="status")
        agents = {pod: (f"{pod}.{DOMAIN}", 9443, 9444) for pod in ADDRESSES}
        await may_not_forward(mesh)
        run = ("run", "--env", "alice", "--target", "checkout:http", "-n", SHOP, "--", "true")
        unknown = await mesh.command("alice", *run)
        assert unknown.process.returncode == 5
        assert f"published address hairpin-agent-0.{DOMAIN} can't be looked up" in unknown.error
        with names_of(mesh, addresses):
            await holds(mesh, agents)
            await holds(mesh, agents, "--identity", "target", account="checkout")
    assert await mesh.cluster.client.list("Session", SHOP) == []
