"""Delivery to Istio's sidecars: what `steer` returns, as the patches of two EnvoyFilters per workload and port. Pure.

* the *plumbing* changes the inbound listener, which drains its connections: written once, out again only by `hairpin
  disable` or uninstall;
* the *sessions* are two discovered filters (ECDS): sessions come and go by them, and no listener hears of them. Deleting the
  object takes nothing out of a sidecar, so that without sessions it is written empty.

Their priorities have istiod add the filters after the place where they are discovered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import TransportSocket

from hairpin.errors import InvalidFieldError
from hairpin.model.mesh import AGENT, SocketAddress, spiffe_id
from xds_server.generate.build import callers_protocol
from xds_server.generate.steer import Claim, SteeringPoint, clusters, filters, match_filters, routes
from xds_server.generate.tls import istio_tls
from xds_server.model.cluster import Key

JsonObject = dict[str, Any]

API_VERSION = "networking.istio.io/v1alpha3"
PLUMBING_PRIORITY = 10
SESSIONS_PRIORITY = 20

PART_OF = "app.kubernetes.io/part-of"
ROLE = "hairpin.dev/role"
WORKLOAD = "hairpin.dev/workload"
PORT = "hairpin.dev/port"

LONGEST_NAME = 253
"""Characters of an object's name."""

_INBOUND = "SIDECAR_INBOUND"
_OUTBOUND = "SIDECAR_OUTBOUND"


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeredWorkload:
    """A workload of which a port is steered."""

    kind: str
    """In lower case, as `WorkloadFacts.kind`."""
    key: Key
    selector: Mapping[str, str]
    """The labels that its pods have and no other's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IstioMesh:
    """What the mesh and the installation fix."""

    cluster_domain: str = "cluster.local"
    agent_service: str = AGENT
    agent_port: int = 8080
    """Of the agent's Service."""
    trust_domain: str = "cluster.local"

    def agent_cluster(self, namespace: str) -> str:
        """A namespace's agent, as sidecars name it."""
        return f"outbound|{self.agent_port}||{self.agent_service}.{namespace}.svc.{self.cluster_domain}"

    def agent_transport(self, namespace: str) -> TransportSocket:
        """How sidecars reach it: its service account bears its name."""
        host = f"{self.agent_service}.{namespace}.svc.{self.cluster_domain}"
        identity = spiffe_id(self.trust_domain, namespace, self.agent_service)
        return istio_tls(identity, f"outbound_.{self.agent_port}_._.{host}")


def plumbing_name(kind: str, name: str, port: int) -> str:
    """The name of a workload's and port's plumbing."""
    return object_name("plumbing", kind, name, port)


def sessions_name(kind: str, name: str, port: int) -> str:
    """The name of the object that has a workload's and port's sessions."""
    return object_name("sessions", kind, name, port)


def steering_point(namespace: str, port: int, mesh: IstioMesh) -> SteeringPoint:
    """A container's port, as its sidecar sees it: the agent is the one of its namespace."""
    return SteeringPoint(
        port=port,
        app=SocketAddress("127.0.0.1", port),
        agent_cluster=mesh.agent_cluster(namespace),
        agent_transport=mesh.agent_transport(namespace),
    )


def plumbing_object(workload: SteeredWorkload, port: int, mesh: IstioMesh) -> JsonObject:
    """The plumbing of a container's port; the same for any sessions.

    Raises:
        InvalidFieldError: the workload has no labels to select its pods by.
    """
    point = steering_point(workload.key.namespace, port, mesh)
    patches = [
        *(patch("CLUSTER", _INBOUND, "ADD", cluster.to_dict()) for cluster in clusters(point)),
        _agents_protocol(point),
        *(patch("HTTP_FILTER", _INBOUND, "INSERT_BEFORE", f.to_dict(), **_before_router(port)) for f in filters(point)),
        # Each goes first, so that the last one ends up there.
        *(
            patch("HTTP_ROUTE", _INBOUND, "INSERT_FIRST", route.to_dict(), routeConfiguration={"portNumber": port})
            for route in reversed(routes(point))
        ),
    ]
    return _envoy_filter("plumbing", workload, port, PLUMBING_PRIORITY, patches)


def sessions_object(workload: SteeredWorkload, port: int, claims: Sequence[Claim], mesh: IstioMesh) -> JsonObject:
    """The sessions of a container's port; without claims, filters that match nothing.

    Raises:
        InvalidFieldError: the workload has no labels to select its pods by.
    """
    found = match_filters(steering_point(workload.key.namespace, port, mesh), claims)
    patches = [patch("EXTENSION_CONFIG", _INBOUND, "ADD", extension.to_dict()) for extension in found]
    return _envoy_filter("sessions", workload, port, SESSIONS_PRIORITY, patches)


def _agents_protocol(point: SteeringPoint) -> JsonObject:
    """The agent's cluster in the caller's protocol: for a port named `tcp-…` Istio gives it no HTTP options."""
    options = Cluster(typed_extension_protocol_options=callers_protocol())
    # Istio makes the cluster on the outbound side; there alone it can be merged into.
    return patch("CLUSTER", _OUTBOUND, "MERGE", options.to_dict(), cluster={"name": point.agent_cluster})


def _before_router(port: int) -> JsonObject:
    manager = {
        "name": "envoy.filters.network.http_connection_manager",
        "subFilter": {"name": "envoy.filters.http.router"},
    }
    return {"listener": {"portNumber": port, "filterChain": {"filter": manager}}}


def patch(apply_to: str, context: str, operation: str, value: JsonObject, **match: JsonObject) -> JsonObject:
    """One of an EnvoyFilter's patches; `match` beside its context."""
    return {
        "applyTo": apply_to,
        "match": {"context": context, **match},
        "patch": {"operation": operation, "value": value},
    }


def _envoy_filter(
    role: str, workload: SteeredWorkload, port: int, priority: int, patches: list[JsonObject]
) -> JsonObject:
    if not workload.selector:
        raise InvalidFieldError(
            f"{workload.kind}/{workload.key.name}.spec.selector",
            None,
            "has no labels, by which an EnvoyFilter finds pods",
            "give its pods a label of their own and select them by it",
        )
    return {
        "apiVersion": API_VERSION,
        "kind": "EnvoyFilter",
        "metadata": {
            "name": object_name(role, workload.kind, workload.key.name, port),
            "namespace": workload.key.namespace,
            "labels": {PART_OF: "hairpin", ROLE: role},
            "annotations": {WORKLOAD: f"{workload.kind}/{workload.key.name}", PORT: str(port)},
        },
        "spec": {
            "priority": priority,
            "workloadSelector": {"labels": dict(workload.selector)},
            "configPatches": patches,
        },
    }


def object_name(role: str, kind: str, name: str, port: int) -> str:
    """An object's name, shortened where the API server would refuse it."""
    whole = f"hairpin-{role}-{kind}-{name}-{port}"
    if len(whole) <= LONGEST_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:10]
    tail = f"-{digest}-{port}"
    # Cut where a name may not end in a dot or a dash.
    return whole[: LONGEST_NAME - len(tail)].rstrip("-.") + tail
