"""Delivery to an ambient mesh's waypoint: an HTTPRoute, or a VirtualService, for a Service's port. Pure.

Where pods have no sidecar, the waypoint of the Service is the one proxy that sees requests. What it costs beside the delivery
to sidecars (`envoyfilter`): a match must be one that routes can say (`route_match`); there is no way back to the application
when the agent refuses, so that a session's rule may stand only while its tunnel is up; and the object is the Service's one
set of routes, beside which a user's own for the same port would be merged or left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from hairpin.errors import InvalidFieldError
from hairpin.headers import SESSION_HEADER
from xds_server.delivery.istio.envoyfilter import PART_OF, PORT, ROLE, IstioMesh, JsonObject, object_name
from xds_server.delivery.istio.outbound import SERVICE
from xds_server.delivery.istio.route_match import Condition, alternatives, in_order
from xds_server.generate.steer import Claim
from xds_server.model.cluster import Key

MOST_RULES = 16
"""Of an HTTPRoute; the last one is the Service's own."""
MOST_MATCHES = 64
"""Of an HTTPRoute's rule."""

_PLURAL = {"header": "headers", "query": "queryParams"}


def waypoint_name(service: str, port: int) -> str:
    """The name of the object for a Service's port."""
    return object_name("waypoint", "service", service, port)


def http_route(service: Key, port: int, claims: Sequence[Claim], mesh: IstioMesh) -> JsonObject:
    """The Gateway API's form, bound to the Service.

    Raises:
        InvalidFieldError: a claim's match is one that no route can say, or there are more than an HTTPRoute takes.
    """
    if len(claims) >= MOST_RULES:
        raise InvalidFieldError(
            f"service/{service.name}:{port}",
            len(claims),
            f"sessions are more than the {MOST_RULES - 1} that an HTTPRoute takes",
            "end one, or deliver by VirtualService",
        )
    rules = [
        {
            "matches": _at_most(claim, [_gateway(conditions) for conditions in alternatives(claim.match)]),
            "filters": [
                {
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": SESSION_HEADER, "value": claim.session}]},
                }
            ],
            "backendRefs": [{"name": mesh.agent_service, "port": mesh.agent_port}],
        }
        for claim in in_order(claims)
    ]
    parent = {"group": "", "kind": "Service", "name": service.name, "port": port}
    own = {"backendRefs": [{"name": service.name, "port": port}]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(service, port),
        "spec": {"parentRefs": [parent], "rules": [*rules, own]},
    }


def virtual_service(service: Key, port: int, claims: Sequence[Claim], mesh: IstioMesh) -> JsonObject:
    """Istio's form, for any number of sessions.

    Raises:
        InvalidFieldError: a claim's match is one that no route can say.
    """
    domain = f"{service.namespace}.svc.{mesh.cluster_domain}"
    host = f"{service.name}.{domain}"
    agent = {"destination": {"host": f"{mesh.agent_service}.{domain}", "port": {"number": mesh.agent_port}}}
    steered = [
        {
            "name": f"hairpin-{claim.session}",
            "match": [{**_istio(conditions), "port": port} for conditions in alternatives(claim.match)],
            "headers": {"request": {"set": {SESSION_HEADER: claim.session}}},
            "route": [agent],
        }
        for claim in in_order(claims)
    ]
    own = {
        "name": "default",
        "match": [{"port": port}],
        "route": [{"destination": {"host": host, "port": {"number": port}}}],
    }
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": _metadata(service, port),
        "spec": {"hosts": [host], "http": [*steered, own]},
    }


def _metadata(service: Key, port: int) -> JsonObject:
    return {
        "name": waypoint_name(service.name, port),
        "namespace": service.namespace,
        "labels": {PART_OF: "hairpin", ROLE: "waypoint"},
        "annotations": {SERVICE: service.name, PORT: str(port)},
    }


def _at_most(claim: Claim, matches: list[JsonObject]) -> list[JsonObject]:
    if len(matches) > MOST_MATCHES:
        raise InvalidFieldError(
            "spec.match", None, f"of {claim.session} has {len(matches)} alternatives", f"write at most {MOST_MATCHES}"
        )
    return matches


def _gateway(conditions: Sequence[Condition]) -> JsonObject:
    result: JsonObject = {}
    for condition in conditions:
        exact = condition.operator == "exact"
        value = ".*" if condition.operator == "present" else condition.value
        entry = {"type": "Exact" if exact else "RegularExpression", "value": value}
        match condition.subject:
            case "method":
                result["method"] = condition.value
            case "path":
                result["path"] = entry
            case subject:
                result.setdefault(_PLURAL[subject], []).append({**entry, "name": condition.name})
    return result


def _istio(conditions: Sequence[Condition]) -> JsonObject:
    result: JsonObject = {}
    for condition in conditions:
        # An empty one asks that there be a header; of a parameter it takes an expression.
        entry = {} if condition.operator == "present" else {condition.operator: condition.value}
        match condition.subject:
            case "method":
                result["method"] = entry
            case "path":
                result["uri"] = entry
            case subject:
                result.setdefault(_PLURAL[subject], {})[condition.name] = entry or (
                    {"regex": ".*"} if subject == "query" else {}
                )
    return result
