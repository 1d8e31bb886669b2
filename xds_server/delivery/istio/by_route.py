"""Steering by routes of Services' ports: the deliveries to callers' sidecars and to waypoints. Pure.

A Service's port takes the place of a workload's: it is where sessions meet, and where conflicts are judged. What is written
for callers' sidecars stays, empty, while there is such a port: routes that go with their cluster would leave requests of that
moment without one. What is written for waypoints has no cluster of its own and goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hairpin.errors import InvalidFieldError
from hairpin.model.delivery import Delivery
from hairpin.model.match import Match
from hairpin.model.target import Target
from xds_server.delivery.istio.cluster_index import ClusterIndex
from xds_server.delivery.istio.conditions import BAD_MATCH, NO_SERVICE, TOO_MANY, refusal
from xds_server.delivery.istio.envoyfilter import PORT, IstioMesh
from xds_server.delivery.istio.outbound import SERVICE, outbound_name, outbound_object
from xds_server.delivery.istio.points import Place, Point
from xds_server.delivery.istio.route_match import alternatives
from xds_server.delivery.istio.waypoint import MOST_RULES, http_route, virtual_service, waypoint_name
from xds_server.delivery.istio.world import JsonObject, PlanSettings
from xds_server.generate.steer import Claim
from xds_server.model.cluster import Key, ServiceFacts, ServicePortFacts, WorkloadFacts

KIND = "service"
"""Of the workload that stands for a Service."""
SESSIONS = "hairpin.dev/sessions"
"""The annotation that names what an object has proxies steer."""


def service_points(index: ClusterIndex, points: Sequence[Point], target: Target) -> tuple[Point, ...]:
    """The Services' ports by which these workloads' ports are called.

    Args:
        index: the cluster.
        points: workloads' ports.
        target: what was named; of a workload, all Services that lead there are meant.

    Raises:
        RefusedError: there is none.
    """
    service = Key(target.namespace, target.name) if target.kind == KIND else None
    found = {
        (selection.service.key, selection.port.number): selection
        for point in points
        for selection in index.selections(point.workload)
        if selection.number == point.port and service in (None, selection.service.key)
    }
    if points and not found:
        raise refusal(NO_SERVICE, "no Service leads to the target's port, so there is no route to change; make one")
    return tuple(_point(found[place].service, found[place].port) for place in sorted(found))


def check_sayable(match: Match) -> None:
    """Raises a RefusedError for a match that no route can say."""
    try:
        alternatives(match)
    except InvalidFieldError as error:
        raise refusal(BAD_MATCH, str(error)) from None


def check_room(point: Point, holders: int, delivery: Delivery) -> None:
    """Raises a RefusedError if an object is full.

    Args:
        point: the Service's port.
        holders: how many sessions hold some of its requests.
        delivery: the mesh's.
    """
    if delivery is Delivery.WAYPOINT_HTTP_ROUTE and holders >= MOST_RULES - 1:
        message = f"{point} has {holders} sessions, and an HTTPRoute takes no more"
        raise refusal(TOO_MANY, f"{message}; wait for one to end, or ask operators for waypoint-virtualservice")


def object_key(point: Point, delivery: Delivery) -> Key:
    """The namespace and name of the object for a Service's port."""
    service = point.workload.key
    name = waypoint_name if delivery.at_waypoint else outbound_name
    return Key(service.namespace, name(service.name, point.port))


def route_objects(
    points: Iterable[Point], claims: Mapping[Place, Sequence[Claim]], settings: PlanSettings, mesh: IstioMesh
) -> dict[Key, JsonObject]:
    """The objects that should be, for points that have one or get one."""
    delivery, objects = settings.delivery, {}
    for point in sorted({point.place: point for point in points}.values(), key=lambda point: point.place):
        here = claims.get(point.place, ())
        if here or not delivery.at_waypoint:
            document = _MAKE[delivery](point.workload.key, point.port, here, mesh)
            document["metadata"]["annotations"][SESSIONS] = ",".join(sorted(claim.session for claim in here))
            objects[object_key(point, delivery)] = document
    return objects


def sessions_of(document: JsonObject | None) -> frozenset[str]:
    """The sessions that an object has proxies steer."""
    annotations = ((document or {}).get("metadata") or {}).get("annotations") or {}
    return frozenset(filter(None, str(annotations.get(SESSIONS, "")).split(",")))


def point_of(index: ClusterIndex, namespace: str, annotations: Mapping[str, object]) -> Point | None:
    """The Service's port that an object says it is for, if there is one."""
    service = index.service(Key(namespace, str(annotations.get(SERVICE, ""))))
    if service is None:
        return None
    return next(
        (_point(service, port) for port in service.ports if str(port.number) == annotations.get(PORT)),
        None,
    )


_MAKE = {
    Delivery.OUTBOUND: outbound_object,
    Delivery.WAYPOINT_HTTP_ROUTE: http_route,
    Delivery.WAYPOINT_VIRTUAL_SERVICE: virtual_service,
}


def _point(service: ServiceFacts, port: ServicePortFacts) -> Point:
    # Labels that select nothing else: what two workloads' selectors may do to each other, Services don't.
    own = {SERVICE: service.key.name}
    return Point(workload=WorkloadFacts(kind=KIND, key=service.key, selector=own, labels=own), port=port.number)
