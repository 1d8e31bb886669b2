"""A workload's port as a place to steer, and what can be said of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from hairpin.model.session import Condition
from xds_server.delivery.istio.cluster_index import ClusterIndex, Selection, covers, pod_labels, reference
from xds_server.delivery.istio.conditions import (
    ALSO_STEERS,
    NO_SELECTOR,
    NO_SIDECAR,
    NOT_HTTP,
    PROTOCOL_DETECTED,
    SELECTED_BY_TEMPLATE,
    field_refusal,
    refusal,
    remark,
)
from xds_server.delivery.istio.protocols import Protocol, protocol_of
from xds_server.model.cluster import Key, WorkloadFacts

Place: TypeAlias = tuple[Key, str, int]
"""A workload's key and kind, and a port: what tells a point from others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A workload's port, where requests can be steered."""

    workload: WorkloadFacts
    port: int
    """The container's."""

    @property
    def place(self) -> Place:
        """What tells it from others."""
        return self.workload.key, self.workload.kind, self.port

    def __str__(self) -> str:
        """As `shop/deployment/checkout:8080`."""
        return f"{self.workload.key.namespace}/{reference(self.workload)}:{self.port}"

    def reaches(self, other: Point) -> bool:
        """Whether what selects this one's pods selects the other's too, at the same port."""
        same = (self.port, self.workload.key.namespace) == (other.port, other.workload.key.namespace)
        return same and covers(pod_labels(self.workload), other.workload.labels)


def protocol_remarks(selections: Iterable[Selection], what: str) -> list[Condition]:
    """What to say of the protocol. Any Service that declares HTTP makes the port one that can be steered."""
    protocols = {protocol_of(s.port): s for s in selections}
    if Protocol.HTTP in protocols:
        return []
    if Protocol.DETECTED in protocols:
        service = protocols[Protocol.DETECTED].service.key.name
        message = (
            f"Service {service} does not say what {what} speaks, so Istio looks at the first bytes of each connection"
        )
        return [remark(PROTOCOL_DETECTED, f"{message}; call the port http-… or grpc-…, or set its appProtocol")]
    selection = protocols[Protocol.OTHER]
    declared = selection.port.app_protocol or selection.port.name or str(selection.port.number)
    problem = (
        f"is {declared!r} in Service {selection.service.key.name}, which is not HTTP: only requests can be steered"
    )
    raise field_refusal(
        NOT_HTTP, "spec.target.port", what, problem, "call the port http-… or grpc-… if it is, or set its appProtocol"
    )


def steerable(index: ClusterIndex, point: Point) -> list[Condition]:
    """Remarks on a point; refused if its sidecars can't be told anything."""
    workload = point.workload
    if not pod_labels(workload):
        raise refusal(
            NO_SELECTOR, f"{reference(workload)} has no labels, so an EnvoyFilter can't name it; label its pods"
        )
    pods = index.pods(workload)
    if pods and not any(pod.sidecar for pod in pods):
        remedy = "label its namespace or its pods' template for injection, and restart it"
        raise refusal(NO_SIDECAR, f"the pods of {reference(workload)} have no sidecar; {remedy}")
    conditions = []
    without = [pod.key.name for pod in pods if not pod.sidecar]
    if without:
        message = (
            f"{len(without)} of {len(pods)} pods of {reference(workload)} have no sidecar ({', '.join(without[:3])})"
        )
        conditions.append(remark(NO_SIDECAR, f"{message}; requests that reach them are not taken"))
    if workload.selector is None:
        message = f"{reference(workload)} selects its pods by matchExpressions, which an EnvoyFilter can't"
        conditions.append(remark(SELECTED_BY_TEMPLATE, f"{message}; the labels of its pods' template are used instead"))
    return conditions


def without_covered(points: list[Point]) -> list[Point]:
    """Without those whose pods another one's selector takes along: two filters of one kind must not meet in a sidecar."""
    return [point for point in sorted(points, key=lambda p: p.place) if not any(_takes(p, point) for p in points)]


def _takes(point: Point, other: Point) -> bool:
    """Whether the first makes the second needless. Of two that select each other's pods, the first by name stays."""
    mutual = other.reaches(point)
    return point.place != other.place and point.reaches(other) and (not mutual or point.place < other.place)


def also_steered(index: ClusterIndex, kept: list[Point], wanted: list[Point]) -> Iterator[Condition]:
    """Remarks on workloads that a selector takes along unasked."""
    meant = {(point.workload.kind, point.workload.key) for point in wanted}
    for point in kept:
        for other in index.workloads(point.workload.key.namespace):
            if (other.kind, other.key) not in meant and covers(pod_labels(point.workload), other.labels):
                message = f"the selector of {reference(point.workload)} takes the pods of {reference(other)} along"
                yield remark(ALSO_STEERS, f"{message}: matching requests that reach those are taken too")
