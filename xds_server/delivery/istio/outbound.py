"""Delivery to callers' sidecars: routes for a Service's port, an update of routes that drains no connection. Pure.

An alternative where the target's listener must not change at all. What it costs beside the delivery to the target
(`envoyfilter`): only callers in the object's own namespace that have a sidecar are steered; a match must be one that routes
can say (`route_match`); the routes stand before those of the user's VirtualServices, and a request that falls back goes to
the Service without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher, QueryParameterMatcher, Route, RouteMatch
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

from xds_server.delivery.istio.envoyfilter import (
    API_VERSION,
    PART_OF,
    PORT,
    ROLE,
    IstioMesh,
    JsonObject,
    object_name,
    patch,
)
from xds_server.delivery.istio.route_match import Condition, alternatives, in_order
from xds_server.generate.build import callers_protocol
from xds_server.generate.steer import Claim, fail_open_routes, in_turn
from xds_server.model.cluster import Key

PRIORITY = 10
SERVICE = "hairpin.dev/service"


def outbound_name(service: str, port: int) -> str:
    """The name of the object for a Service's port."""
    return object_name("outbound", "service", service, port)


def outbound_object(service: Key, port: int, claims: Sequence[Claim], mesh: IstioMesh) -> JsonObject:
    """The steering of a Service's port at its callers in its own namespace.

    Raises:
        InvalidFieldError: a claim's match is one that no route can say.
    """
    host = f"{service.name}.{service.namespace}.svc.{mesh.cluster_domain}"
    agent = mesh.agent_cluster(service.namespace)
    aggregate = in_turn(f"hairpin|out|{port}|{host}", agent, f"outbound|{port}||{host}")
    protocol = Cluster(typed_extension_protocol_options=callers_protocol())
    routes = list(chain.from_iterable(_routes(claim, aggregate.name) for claim in in_order(claims)))
    place = {"vhost": {"name": f"{host}:{port}"}}
    patches = [
        patch("CLUSTER", "SIDECAR_OUTBOUND", "ADD", aggregate.to_dict()),
        patch("CLUSTER", "SIDECAR_OUTBOUND", "MERGE", protocol.to_dict(), cluster={"name": agent}),
        # Each goes first, so that the last one ends up there.
        *(
            patch("HTTP_ROUTE", "SIDECAR_OUTBOUND", "INSERT_FIRST", route.to_dict(), routeConfiguration=place)
            for route in reversed(routes)
        ),
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "EnvoyFilter",
        "metadata": {
            "name": outbound_name(service.name, port),
            "namespace": service.namespace,
            "labels": {PART_OF: "hairpin", ROLE: "outbound"},
            "annotations": {SERVICE: service.name, PORT: str(port)},
        },
        "spec": {"priority": PRIORITY, "configPatches": patches},
    }


def _routes(claim: Claim, cluster: str) -> list[Route]:
    found: list[Route] = []
    for conditions in alternatives(claim.match):
        found += fail_open_routes(f"hairpin-{claim.session}", route_match(conditions), cluster, claim.session)
    return found


def route_match(conditions: Sequence[Condition]) -> RouteMatch:
    """Envoy's form of the conditions."""
    result = RouteMatch(prefix="/")
    for condition in conditions:
        present = condition.operator == "present"
        matcher = None if present else _string(condition)
        match condition.subject:
            case "query":
                parameter = QueryParameterMatcher(name=condition.name)
                if matcher is None:
                    parameter.present_match = True
                else:
                    parameter.string_match = matcher
                result.query_parameters.append(parameter)
            case "path" if condition.operator == "exact":
                result.prefix, result.path = None, condition.value
            case "path":
                result.prefix, result.safe_regex = None, RegexMatcher(regex=condition.value)
            case "header" | "method":
                name = condition.name or ":method"
                header = HeaderMatcher(name=name)
                if matcher is None:
                    header.present_match = True
                else:
                    header.string_match = matcher
                result.headers.append(header)
    return result


def _string(condition: Condition) -> StringMatcher:
    if condition.operator == "exact":
        return StringMatcher(exact=condition.value)
    return StringMatcher(safe_regex=RegexMatcher(regex=condition.value))
