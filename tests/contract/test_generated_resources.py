"""Every resource that the control plane generates for a proxy of the mesh is one that the real Envoy takes."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import Any

import betterproto2
import pytest
import yaml
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from hairpin.envoy.process import validate
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.sidecar import sidecar_bootstrap
from hairpin.mesh.state import MeshFolder, write_folder
from hairpin.model.match_text import parse_match
from hairpin.model.mesh import ENTRY
from hairpin.ports import free_ports
from tests.support.mesh import ROOT
from xds_server.generate.egress import egress_resource
from xds_server.generate.sidecar import (
    agent_resources,
    copies_endpoints,
    endpoint_resources,
    entry_resources,
    match_resources,
    workload_resources,
)
from xds_server.generate.steer import Claim
from xds_server.model.resource import Resource
from xds_server.model.type_url import TypeUrl

pytestmark = pytest.mark.envoy

MESSAGES: dict[str, type[betterproto2.Message]] = {
    TypeUrl.CLUSTER: Cluster,
    TypeUrl.CLUSTER_LOAD_ASSIGNMENT: ClusterLoadAssignment,
    TypeUrl.LISTENER: Listener,
    TypeUrl.ROUTE_CONFIGURATION: RouteConfiguration,
    TypeUrl.EXTENSION_CONFIG: TypedExtensionConfig,
}
MESH = mesh_from_document(yaml.safe_load((ROOT / "examples/shop/mesh.yaml").read_text()), free_ports())
CLAIMS = [
    Claim(session=f"s{index}", created=dt.datetime(2026, 1, 1, second=index, tzinfo=dt.UTC), match=parse_match(text))
    for index, text in enumerate(
        [
            "header x-env=alice",
            "header x-user=42 and path ^/api",
            "not (method GET,HEAD or header x-debug) and query q=1",
            'baggage env=bob or tracestate env^=team- or header x-a~"[a-z]+(-[0-9]{1,3})?"',
        ]
    )
]


def every(resources: list[Resource], endpoints: bool) -> list[Resource]:
    ready = frozenset(agent.name for agent in MESH.agents) if endpoints else frozenset()
    return [*resources, *endpoint_resources(MESH, ready)]


PROXIES = {
    **{
        w.name: every([*workload_resources(MESH, w), *copies_endpoints(MESH, w, frozenset({"hairpin-agent-0"}))], True)
        for w in MESH.workloads
    },
    **{a.name: every(agent_resources(MESH, a), False) for a in MESH.agents},
    ENTRY: every(entry_resources(MESH), True),
}


def as_json(resource: Resource) -> dict[str, Any]:
    message = MESSAGES[resource.type_url].parse(resource.body)
    return json.loads(message.to_json())


@pytest.mark.parametrize("name", PROXIES)
async def test_a_proxys_resources(name, tmp_path):
    """Static where they would be discovered: endpoints inside their clusters, routes inside their listeners."""
    folder = MeshFolder(tmp_path)
    write_folder(folder, MESH)
    bootstrap = sidecar_bootstrap(MESH, name, folder.identity(name), folder.control_plane_identity(name))
    static = bootstrap["static_resources"]
    found: dict[str, list[dict[str, Any]]] = {type_url: [] for type_url in MESSAGES}
    for resource in PROXIES[name]:
        found[resource.type_url].append(as_json(resource))
    assert found[TypeUrl.CLUSTER] and found[TypeUrl.LISTENER] and found[TypeUrl.ROUTE_CONFIGURATION]
    endpoints = {entry["clusterName"]: entry for entry in found[TypeUrl.CLUSTER_LOAD_ASSIGNMENT]}
    for cluster in found[TypeUrl.CLUSTER]:
        if found_by := cluster.pop("edsClusterConfig", None):
            cluster |= {"type": "STATIC", "loadAssignment": endpoints.pop(found_by["serviceName"])}
    assert not endpoints, "endpoints that no cluster names"
    routes = {entry["name"]: entry for entry in found[TypeUrl.ROUTE_CONFIGURATION]}
    inline(found[TypeUrl.LISTENER], routes)
    static["clusters"] += found[TypeUrl.CLUSTER]
    static["listeners"] = found[TypeUrl.LISTENER]
    await validate(bootstrap)


def inline(document: Any, routes: dict[str, Any]) -> None:
    match document:
        case {"rds": {"routeConfigName": name}}:
            del document["rds"]
            document["routeConfig"] = routes[name]
        case dict():
            for value in document.values():
                inline(value, routes)
        case list():
            for value in document:
                inline(value, routes)


@pytest.mark.parametrize(
    "resource",
    [
        *match_resources(MESH, MESH.workloads[0].ports[0], []),
        *match_resources(MESH, MESH.workloads[0].ports[0], CLAIMS),
        match_resources(MESH, MESH.workloads[0].ports[0], [replace(claim, mirror=True) for claim in CLAIMS])[1],
        egress_resource([]),
        egress_resource(["checkout-alice-1"], ["checkout-bob-2"]),
    ],
    ids=["no claims", "no mirrors", "claims", "claims, no mirrors", "mirrors", "no sessions", "sessions"],
)
async def test_a_discovered_filter(resource):
    config = as_json(resource)["typedConfig"]
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "x",
        "httpFilters": [{"name": resource.name, "typedConfig": config}, {"name": "router", "typedConfig": router}],
        "routeConfig": {},
    }
    chain = {"filters": [{"name": "http", "typedConfig": manager}]}
    address = {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}
    await validate({"staticResources": {"listeners": [{"name": "x", "address": address, "filterChains": [chain]}]}})
