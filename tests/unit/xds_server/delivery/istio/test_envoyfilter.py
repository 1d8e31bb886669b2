"""The EnvoyFilters of a workload's port."""

from __future__ import annotations

import datetime as dt

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.config.route.v3 import Route
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from hairpin.errors import InvalidFieldError
from hairpin.model.environment import Environment
from xds_server.delivery.istio.envoyfilter import (
    IstioMesh,
    SteeredWorkload,
    plumbing_name,
    plumbing_object,
    sessions_name,
    sessions_object,
    steering_point,
)
from xds_server.generate.steer import Claim, match_filters, steer
from xds_server.model.cluster import Key

CHECKOUT = SteeredWorkload(kind="deployment", key=Key("shop", "checkout"), selector={"app": "checkout"})
MESH = IstioMesh()
AGENT = "outbound|8080||hairpin-agent.shop.svc.cluster.local"
PARTS = steer(steering_point("shop", 8080, MESH), ())


def claim(name: str) -> Claim:
    created = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return Claim(session=f"{name}.shop", created=created, match=Environment(name).match)


def patches(document, apply_to, operation):
    found = [p for p in document["spec"]["configPatches"] if p["applyTo"] == apply_to]
    return [p for p in found if p["patch"]["operation"] == operation]


def values(document, apply_to, operation):
    return [p["patch"]["value"] for p in patches(document, apply_to, operation)]


@pytest.mark.parametrize("role", ["plumbing", "sessions"])
def test_an_object_says_whose_it_is(role):
    document = (
        plumbing_object(CHECKOUT, 8080, MESH) if role == "plumbing" else sessions_object(CHECKOUT, 8080, (), MESH)
    )
    assert (document["apiVersion"], document["kind"]) == ("networking.istio.io/v1alpha3", "EnvoyFilter")
    assert document["metadata"] == {
        "name": f"hairpin-{role}-deployment-checkout-8080",
        "namespace": "shop",
        "labels": {"app.kubernetes.io/part-of": "hairpin", "hairpin.dev/role": role},
        "annotations": {"hairpin.dev/workload": "deployment/checkout", "hairpin.dev/port": "8080"},
    }
    assert document["spec"]["workloadSelector"] == {"labels": {"app": "checkout"}}


def test_where_the_filter_is_discovered_comes_before_the_filter():
    plumbing, sessions = plumbing_object(CHECKOUT, 8080, MESH), sessions_object(CHECKOUT, 8080, (), MESH)
    assert plumbing["spec"]["priority"] < sessions["spec"]["priority"]


def test_plumbing_carries_the_bytes_that_steering_made():
    document = plumbing_object(CHECKOUT, 8080, MESH)
    clusters = [bytes(Cluster.from_dict(value)) for value in values(document, "CLUSTER", "ADD")]
    assert clusters == [bytes(cluster) for cluster in PARTS.clusters]
    filters = [bytes(HttpFilter.from_dict(value)) for value in values(document, "HTTP_FILTER", "INSERT_BEFORE")]
    assert filters == [bytes(filter_) for filter_ in PARTS.filters]
    routes = [bytes(Route.from_dict(value)) for value in values(document, "HTTP_ROUTE", "INSERT_FIRST")]
    assert routes[::-1] == [bytes(route) for route in PARTS.routes]


def test_sessions_carry_the_bytes_that_steering_made():
    claims = [claim("alice"), claim("bob")]
    document = sessions_object(CHECKOUT, 8080, claims, MESH)
    found = [bytes(TypedExtensionConfig.from_dict(v)) for v in values(document, "EXTENSION_CONFIG", "ADD")]
    assert found == [bytes(part) for part in match_filters(steering_point("shop", 8080, MESH), claims)]


def test_the_sessions_are_resources_that_the_plumbing_discovers():
    *discovered, _ = values(plumbing_object(CHECKOUT, 8080, MESH), "HTTP_FILTER", "INSERT_BEFORE")
    extensions = values(sessions_object(CHECKOUT, 8080, (), MESH), "EXTENSION_CONFIG", "ADD")
    assert [place["name"] for place in discovered] == [extension["name"] for extension in extensions]
    for place, extension in zip(discovered, extensions, strict=True):
        assert place["configDiscovery"]["typeUrls"] == [extension["typedConfig"]["@type"]]


def test_plumbing_patches_no_other_port():
    document = plumbing_object(CHECKOUT, 8080, MESH)
    for patch in patches(document, "HTTP_FILTER", "INSERT_BEFORE"):
        assert patch["match"]["listener"]["portNumber"] == 8080
    for patch in patches(document, "HTTP_ROUTE", "INSERT_FIRST"):
        assert patch["match"]["routeConfiguration"] == {"portNumber": 8080}


def test_everything_but_the_agents_cluster_is_on_the_inbound_side():
    document = plumbing_object(CHECKOUT, 8080, MESH)
    [merge] = patches(document, "CLUSTER", "MERGE")
    assert merge["match"] == {"context": "SIDECAR_OUTBOUND", "cluster": {"name": AGENT}}
    others = [p for p in document["spec"]["configPatches"] if p is not merge]
    assert {p["match"]["context"] for p in others} == {"SIDECAR_INBOUND"}


def test_the_agent_is_the_one_of_the_workloads_namespace():
    mesh = IstioMesh(cluster_domain="example.org", agent_service="agent", agent_port=80)
    assert steering_point("blue", 8080, mesh).agent_cluster == "outbound|80||agent.blue.svc.example.org"


def test_without_labels_every_pod_of_the_namespace_would_be_patched():
    workload = SteeredWorkload(kind="pod", key=Key("shop", "bare"), selector={})
    with pytest.raises(InvalidFieldError, match="pod/bare"):
        plumbing_object(workload, 8080, MESH)
    with pytest.raises(InvalidFieldError, match="pod/bare"):
        sessions_object(workload, 8080, (), MESH)


def test_a_name_too_long_is_shortened_and_stays_unlike_any_other():
    long = "a" * 251
    names = {plumbing_name("deployment", long + end, port) for end in ("x", "y") for port in (80, 81)}
    assert len(names) == 4 and all(len(name) <= 253 for name in names)
    assert sessions_name("deployment", "a" * 200, 65535) == f"hairpin-sessions-deployment-{'a' * 200}-65535"


def test_a_shortened_name_is_still_one_of_kubernetes():
    dotted = ".".join(["a" * 60] * 4)
    for cut in range(20):
        name = plumbing_name("statefulset", "a" * cut + dotted, 8080)
        assert len(name) <= 253
        assert all(label and label.strip("-") == label for label in name.split("."))
