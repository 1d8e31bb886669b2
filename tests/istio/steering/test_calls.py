"""A command's calls beside a real mesh: the header that `--inject-env` adds, and what `hairpin explain-egress` says of them."""

from __future__ import annotations

import json

import pytest

from tests.support.cluster.images import PYTHON
from tests.support.istio_mesh import SHOP
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

CALLS = """
import json, os, ssl, urllib.error, urllib.request
def get(url, headers={}, context=None):
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20, context=context)
    except urllib.error.HTTPError as error:
        response = error
    return json.loads(response.read())
for headers in ({}, {"baggage": "user=7"}, {"baggage": "env=bob", "x-env": "bob"}):
    print(json.dumps(get("http://inventory/", headers)["headers"]), flush=True)
own = ssl.create_default_context(cadata=os.environ["AUTHORITY"])
print(json.dumps(get("https://kubernetes.default.svc.cluster.local/version", context=own)), flush=True)
"""
IN_BAGGAGE = "in-baggage"
ENVIRONMENT = {
    "apiVersion": "hairpin.dev/v1alpha1",
    "kind": "Environment",
    "metadata": {"name": IN_BAGGAGE, "namespace": SHOP},
    "spec": {"routingKey": {"baggage": "env"}},
}
POLICY = {
    "apiVersion": "hairpin.dev/v1alpha1",
    "kind": "EgressPolicy",
    "metadata": {"name": "default", "namespace": SHOP},
    "spec": {"rules": [{"action": "Deny", "hosts": ["frontend.shop.svc.cluster.local"], "reason": "it is the entry"}]},
}


@pytest.fixture
async def environment(mesh):
    """One whose requests are marked by a member of baggage."""
    await mesh.cluster.client.apply(ENVIRONMENT)
    yield IN_BAGGAGE
    await mesh.cluster.client.delete("Environment", IN_BAGGAGE, SHOP)


async def called(mesh, environment, *flags):
    """The headers that inventory got, and what the API server answered by TLS; the session's lines."""
    authority = mesh.cluster.plane.pki.certificate.read_text()
    arguments = ("run", "--mode", "egress", "--env", environment, "-n", SHOP, *flags, "--", PYTHON, "-c", CALLS)
    run = await mesh.command("alice", *arguments, environment={"AUTHORITY": authority})
    assert run.process.returncode == 0, run.errors
    *headers, version = map(json.loads, run.output)
    return headers, version, run.errors


async def test_inject_env_adds_the_header_that_a_call_lacks_and_leaves_tls_alone(mesh):
    headers, version, errors = await called(mesh, "alice", "--inject-env")
    assert [found["x-env"] for found in headers] == ["alice", "alice", "bob"]
    assert [found.get("baggage") for found in headers] == [None, "user=7", "env=bob"]
    # The certificate was the API server's own, by the cluster's authority: nobody was between to add anything.
    assert {"gitVersion", "message"} & set(version), version
    assert any(line.endswith("the command's HTTP requests that lack it get header x-env=alice") for line in errors)


async def test_inject_env_merges_the_member_of_an_environment_that_is_marked_by_baggage(mesh, environment):
    headers, _, _ = await called(mesh, environment, "--inject-env")
    member = f"env={environment}"
    assert [found["baggage"] for found in headers] == [member, f"user=7,{member}", "env=bob"]
    assert [found.get("x-env") for found in headers] == [None, None, "bob"]


async def test_explain_egress_says_what_is_allowed_refused_and_unknown_and_leaves_nothing(mesh):
    async def explained(*words):
        run = await mesh.command("alice", "explain-egress", "-n", SHOP, *words)
        return run.process.returncode, run.output, run.errors

    address = (await mesh.cluster.client.get("Service", "inventory", SHOP))["spec"]["clusterIP"]
    await mesh.cluster.client.apply(POLICY)
    try:
        assert await explained("inventory:80") == (
            0,
            [
                "inventory:80 goes into the mesh: by default",
                f"inventory is {address}: the cluster says so (inventory.shop.svc.cluster.local)",
                f"allowed: the agent connects to {address}:80",
            ],
            [],
        )

        async def refused():
            code, lines, errors = await explained("frontend:80")
            return code == 7 and "it is the entry" in lines[-1] and not errors

        # The agents follow the policy as it is written.
        await eventually(refused, "frontend is refused, with the policy's own reason")
        code, lines, _ = await explained("nobody:80")
        assert (code, lines[-1].partition(":")[0]) == (3, "the command is told that there is no such name")
        code, lines, _ = await explained("inventory:80", "--refuse", "inventory")
        assert (code, lines) == (7, ["inventory:80 is refused on this machine: --refuse inventory"])
    finally:
        await mesh.cluster.client.delete("EgressPolicy", "default", SHOP)
    assert await mesh.cluster.client.list("Session", SHOP) == []
