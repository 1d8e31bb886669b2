"""Decentralized routing as teams have it: VirtualServices route by the header, some environments have deployments of their own."""

from __future__ import annotations

import copy
import itertools
from contextlib import AsyncExitStack

import pytest

from tests.support.istio_mesh import SHOP, operator
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

OWN = "checkout-alice"
"""Environment alice's own checkout. Environment bob has none, and shares v1."""


def route(subset, **match):
    destination = {"host": "checkout", "subset": subset}
    found = {"route": [{"destination": destination}], "timeout": "10s", "retries": {"attempts": 2}}
    return {**found, "match": [match]} if match else found


VIRTUAL_SERVICE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "checkout", "namespace": SHOP},
    "spec": {
        "hosts": ["checkout"],
        "http": [route("alice", headers={"x-env": {"exact": "alice"}}), route("v1")],
    },
}
DESTINATION_RULE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "DestinationRule",
    "metadata": {"name": "checkout", "namespace": SHOP},
    "spec": {
        "host": "checkout",
        "trafficPolicy": {"connectionPool": {"http": {"maxRequestsPerConnection": 100}}},
        "subsets": [{"name": name, "labels": {"version": name}} for name in ("v1", "alice")],
    },
}
OTHERS_FILTER = {
    "apiVersion": "networking.istio.io/v1alpha3",
    "kind": "EnvoyFilter",
    "metadata": {"name": "someone-elses", "namespace": SHOP},
    "spec": {
        "workloadSelector": {"labels": {"app": "checkout"}},
        "configPatches": [
            {
                "applyTo": "HTTP_FILTER",
                "match": {
                    "context": "SIDECAR_INBOUND",
                    "listener": {
                        "filterChain": {
                            "filter": {
                                "name": "envoy.filters.network.http_connection_manager",
                                "subFilter": {"name": "envoy.filters.http.router"},
                            }
                        }
                    },
                },
                "patch": {
                    "operation": "INSERT_BEFORE",
                    "value": {
                        "name": "someone-elses",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                            "default_source_code": {
                                "inline_string": "function envoy_on_request(handle)\n"
                                '  handle:headers():add("x-someone", "else")\nend\n'
                            },
                        },
                    },
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
async def environments(mesh):
    """The shop with routing by header, another's EnvoyFilter, and checkout-alice."""
    client = mesh.cluster.client
    own = copy.deepcopy(await client.get("Deployment", "checkout", SHOP))
    labels = {"app": "checkout", "version": "alice"}
    spec = own["spec"]
    template = spec["template"]
    template["metadata"] = {"labels": labels}
    template["spec"]["containers"][0]["args"] = [OWN, "http://inventory/"]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": OWN, "namespace": SHOP},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    await client.apply(deployment, DESTINATION_RULE, VIRTUAL_SERVICE, OTHERS_FILTER)
    await mesh.cluster.rolled_out("Deployment", OWN, SHOP)
    await operator(mesh.cluster, "enable", f"deployment/{OWN}:8080", "-n", SHOP)
    await mesh.answered_by(OWN, "alice")
    await mesh.answered_by("checkout", "bob")
    yield mesh
    for kind, name in (
        ("EnvoyFilter", "someone-elses"),
        ("VirtualService", "checkout"),
        ("DestinationRule", "checkout"),
        ("Deployment", OWN),
    ):
        await client.delete(kind, name, SHOP)

    async def gone():
        return not await mesh.cluster.pods(SHOP, "version=alice")

    await eventually(gone, "checkout-alice's pod is gone")


async def test_every_environment_gets_its_own_three_hops_deep(environments):
    """alice holds her environment's own checkout, bob the shared inventory: each sees only their requests, at any depth."""
    mesh = environments
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(mesh.laptop("alice", "alice", target=f"deployment/{OWN}:8080", following="http://inventory/"))
        await enter(mesh.laptop("bob", "bob", target="inventory"))
        expected = {
            "alice": ["frontend", "laptop of alice", "inventory"],
            "bob": ["frontend", "checkout", "laptop of bob"],
            None: ["frontend", "checkout", "inventory"],
            "carol": ["frontend", "checkout", "inventory"],
        }
        for environment, _ in itertools.product(expected, range(5)):
            answer = await mesh.ask(environment, host="frontend", caller="inventory")
            hops = [answer["who"], answer["next"]["who"], answer["next"]["next"]["who"]]
            assert hops == expected[environment], environment
            assert environment is None or answer["next"]["next"]["headers"]["x-env"] == environment


async def test_a_service_as_target_means_the_environments_own_deployment_too(environments):
    mesh = environments
    async with mesh.laptop("alice", "alice"), mesh.laptop("bob", "bob"):
        for environment, who in (("alice", "laptop of alice"), ("bob", "laptop of bob"), (None, "checkout")):
            assert {(await mesh.ask(environment))["who"] for _ in range(6)} == {who}
    await mesh.answered_by(OWN, "alice")
    await mesh.answered_by("checkout", "bob")


async def test_anothers_filter_still_works_for_everyone(environments):
    mesh = environments
    async with mesh.laptop("bob", "bob"):
        for environment, who in (("bob", "laptop of bob"), (None, "checkout"), ("alice", OWN)):
            answer = await mesh.ask(environment)
            assert (answer["who"], answer["headers"]["x-someone"]) == (who, "else")
