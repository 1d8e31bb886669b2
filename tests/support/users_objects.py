"""What teams have beside hairpin in a mesh: routes, subsets, an EnvoyFilter, a second deployment of a service."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.support.cluster.client import Object
from tests.support.istio_mesh import SHOP, IstioMesh, followed, operator
from tests.support.mesh import eventually

NETWORKING = "networking.istio.io/v1"
_MANAGER = "envoy.filters.network.http_connection_manager"
_LUA = """
function envoy_on_request(handle) handle:headers():add("x-someone", "else") end
function envoy_on_response(handle) handle:headers():add("x-someone", "else") end
"""


def virtual_service(*http: Object) -> Object:
    """Routes to checkout."""
    metadata = {"name": "checkout", "namespace": SHOP}
    spec = {"hosts": ["checkout"], "http": list(http)}
    return {"apiVersion": NETWORKING, "kind": "VirtualService", "metadata": metadata, "spec": spec}


def route(weights: Mapping[str, int], *, match: Object | None = None, **more: Any) -> Object:
    """One route, to subsets of checkout by their weights."""
    to = [{"destination": {"host": "checkout", "subset": name}, "weight": weight} for name, weight in weights.items()]
    return {"route": to, **more, **({"match": [match]} if match else {})}


def destination_rule(*subsets: str, policy: Object | None = None) -> Object:
    """checkout's subsets, by the label `version`."""
    metadata = {"name": "checkout", "namespace": SHOP}
    chosen = [{"name": name, "labels": {"version": name}} for name in subsets]
    spec = {"host": "checkout", "subsets": chosen, **({"trafficPolicy": policy} if policy else {})}
    return {"apiVersion": NETWORKING, "kind": "DestinationRule", "metadata": metadata, "spec": spec}


def inbound_filter(
    name: str, labels: Mapping[str, str], patch: Object, *, at: str = "envoy.filters.http.router", priority: int = 0
) -> Object:
    """An EnvoyFilter that changes something at an HTTP filter of the port 8080 of pods."""
    listener = {"portNumber": 8080, "filterChain": {"filter": {"name": _MANAGER, "subFilter": {"name": at}}}}
    match = {"context": "SIDECAR_INBOUND", "listener": listener}
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": {
            "priority": priority,
            "workloadSelector": {"labels": dict(labels)},
            "configPatches": [{"applyTo": "HTTP_FILTER", "match": match, "patch": patch}],
        },
    }


def lua_filter(name: str) -> Object:
    """An EnvoyFilter at checkout that adds `x-someone: else` to requests and to responses."""
    lua = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": _LUA},
    }
    patch = {"operation": "INSERT_BEFORE", "value": {"name": name, "typed_config": lua}}
    return inbound_filter(name, {"app": "checkout"}, patch)


@contextlib.asynccontextmanager
async def beside(mesh: IstioMesh, *objects: Object) -> AsyncIterator[None]:
    """Objects of users', for the length of the block."""
    await mesh.cluster.client.apply(*objects)
    try:
        yield
    finally:
        for found in reversed(objects):
            await mesh.cluster.client.delete(found["kind"], found["metadata"]["name"], SHOP)


@contextlib.asynccontextmanager
async def another_checkout(mesh: IstioMesh, name: str, version: str, *others: Object) -> AsyncIterator[None]:
    """A second deployment behind the Service checkout, with its plumbing in place, and others' objects."""
    client = mesh.cluster.client
    template = copy.deepcopy((await client.get("Deployment", "checkout", SHOP))["spec"]["template"])
    labels = {"app": "checkout", "version": version}
    template["metadata"] = {"labels": labels}
    template["spec"]["containers"][0]["args"] = [name, "http://inventory/"]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    async with beside(mesh, deployment, *others):
        await mesh.cluster.rolled_out("Deployment", name, SHOP)
        await operator(mesh.cluster, "enable", f"deployment/{name}:8080", "-n", SHOP)
        yield

    async def gone() -> bool:
        return not await client.list("Pod", SHOP, f"version={version}")

    await eventually(gone, f"the pod of {name} is gone")
    # Nor does a caller's sidecar lead there, or by routes and subsets that are gone.
    await followed(mesh.cluster, SHOP, "checkout")
    await mesh.answered_by("checkout", None)
