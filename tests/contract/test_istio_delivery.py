"""What istiod is given is what ADS gives to the embedded mesh's sidecars, byte for byte.

One `steer` stands behind both. Here its two ends are compared: the EnvoyFilters' values, read back, with what stands in the
clusters, the listener and the discovered filter of an embedded sidecar.
"""

from __future__ import annotations

import datetime as dt

import yaml
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import Route
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,  # noqa: F401 # known to `unpack`
    HttpFilter,
)

from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.model.match_text import parse_match
from hairpin.ports import free_ports
from tests.support.mesh import ROOT
from xds_server.delivery.istio.envoyfilter import IstioMesh, SteeredWorkload, plumbing_object, sessions_object
from xds_server.generate.sidecar import AGENT_PORT, match_resources, workload_resources
from xds_server.generate.steer import Claim
from xds_server.model.cluster import Key
from xds_server.model.type_url import TypeUrl

MESH = mesh_from_document(yaml.safe_load((ROOT / "examples/shop/mesh.yaml").read_text()), free_ports())
WORKLOAD = MESH.workloads[0]
PORT = WORKLOAD.ports[0]
ISTIO = IstioMesh(agent_port=AGENT_PORT)
STEERED = SteeredWorkload(kind="deployment", key=Key(MESH.namespace, WORKLOAD.name), selector={"app": WORKLOAD.name})
CLAIMS = [
    Claim(
        session=f"s{index}.shop", created=dt.datetime(2026, 1, 1, second=index, tzinfo=dt.UTC), match=parse_match(text)
    )
    for index, text in enumerate(
        [
            "header x-env=alice",
            "header x-user=42 and path ^/api",
            "not (method GET,HEAD or header x-debug) and query q=1",
            'baggage env=bob or tracestate env^=team- or header x-a~"[a-z]+(-[0-9]{1,3})?"',
        ]
    )
]
RESOURCES = workload_resources(MESH, WORKLOAD)


def given(document, apply_to, operation):
    patches = [p for p in document["spec"]["configPatches"] if p["applyTo"] == apply_to]
    return [p["patch"]["value"] for p in patches if p["patch"]["operation"] == operation]


def manager():
    [listener] = [r for r in RESOURCES if r.type_url == TypeUrl.LISTENER and r.name == f"inbound_{PORT.number}"]
    [chain] = Listener.parse(listener.body).filter_chains
    return chain.filters[-1].typed_config.unpack()


def plumbing():
    return plumbing_object(STEERED, PORT.number, ISTIO)


def test_clusters():
    """But for the application's address: in a pod it is on loopback, at the container's port."""
    embedded = {r.name: Cluster.parse(r.body) for r in RESOURCES if r.type_url == TypeUrl.CLUSTER}
    found = [Cluster.from_dict(value) for value in given(plumbing(), "CLUSTER", "ADD")]
    assert [cluster.name for cluster in found] == [f"hairpin|{kind}{PORT.number}" for kind in ("local|", "", "copies|")]
    for cluster in found:
        if cluster.transport_socket:  # certificates come from elsewhere, and the agent's Service has another port
            cluster.transport_socket = embedded[cluster.name].transport_socket
            cluster.eds_cluster_config = embedded[cluster.name].eds_cluster_config
        if cluster.load_assignment:
            cluster.load_assignment = embedded[cluster.name].load_assignment
        assert bytes(cluster) == bytes(embedded[cluster.name])


def test_the_agents_cluster_gets_the_protocol_options_that_the_embedded_one_has():
    [merged] = given(plumbing(), "CLUSTER", "MERGE")
    [agent] = [Cluster.parse(r.body) for r in RESOURCES if r.name.startswith(f"outbound|{AGENT_PORT}||hairpin-agent.")]
    assert Cluster.from_dict(merged).typed_extension_protocol_options == agent.typed_extension_protocol_options


def test_filters_before_the_router():
    *before, router = manager().http_filters
    found = [HttpFilter.from_dict(value) for value in given(plumbing(), "HTTP_FILTER", "INSERT_BEFORE")]
    assert [bytes(filter_) for filter_ in found] == [bytes(filter_) for filter_ in before]
    assert router.name == "envoy.filters.http.router"


def test_routes_before_the_apps_own():
    [host] = manager().route_config.virtual_hosts
    *before, default = host.routes
    # istiod puts each of them first, one after the other.
    found = [Route.from_dict(value) for value in given(plumbing(), "HTTP_ROUTE", "INSERT_FIRST")][::-1]
    assert [bytes(route) for route in found] == [bytes(route) for route in before]
    assert default.name == "default"


def test_the_discovered_filters():
    found = given(sessions_object(STEERED, PORT.number, CLAIMS, ISTIO), "EXTENSION_CONFIG", "ADD")
    expected = [resource.body for resource in match_resources(MESH, PORT, CLAIMS)]
    assert [bytes(TypedExtensionConfig.from_dict(value)) for value in found] == expected
