"""The EnvoyFilters that should be, and those that should not. Pure.

Plumbing is written for the first session that may have a point, and stays. With it there is always an object for the point's
sessions, empty or not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hairpin.model.delivery import Delivery
from xds_server.delivery.istio.by_route import object_key, point_of, route_objects, sessions_of
from xds_server.delivery.istio.cluster_index import ClusterIndex, pod_labels
from xds_server.delivery.istio.envoyfilter import (
    PORT,
    ROLE,
    WORKLOAD,
    IstioMesh,
    SteeredWorkload,
    plumbing_name,
    plumbing_object,
    sessions_name,
    sessions_object,
)
from xds_server.delivery.istio.points import Place, Point
from xds_server.delivery.istio.world import JsonObject, PlanSettings, World
from xds_server.generate.steer import Claim, disjoint
from xds_server.model.cluster import Key

T = TypeVar("T")

ROLES = {
    Delivery.INBOUND: ("plumbing", "sessions"),
    Delivery.OUTBOUND: ("outbound",),
    Delivery.WAYPOINT_HTTP_ROUTE: ("waypoint",),
    Delivery.WAYPOINT_VIRTUAL_SERVICE: ("waypoint",),
}
"""Of each delivery's objects: another's are useless."""


class Renderer:
    """Makes the objects of points; remembers the last of each and its parts, since encoding is what takes time.

    Not pure in its speed alone: what it returns depends on its arguments only.
    """

    def __init__(self) -> None:
        self._plumbing: dict[Key, tuple[Any, JsonObject]] = {}
        self._sessions: dict[Key, tuple[Any, JsonObject]] = {}
        self._single: dict[Key, dict[Any, JsonObject]] = {}
        """By sessions' objects, those of each claim alone."""

    def plumbing(self, point: Point, mesh: IstioMesh) -> tuple[Key, JsonObject]:
        """The plumbing of a point."""
        key, workload = plumbing_key(point), _steered(point)
        made_of = workload, point.port, mesh
        before = self._plumbing.get(key)
        if before is None or before[0] != made_of:
            before = self._plumbing[key] = made_of, plumbing_object(workload, point.port, mesh)
        return key, before[1]

    def sessions(self, point: Point, claims: Sequence[Claim], mesh: IstioMesh) -> tuple[Key, JsonObject]:
        """The sessions of a point."""
        key, workload = sessions_key(point), _steered(point)
        made_of = workload, point.port, tuple(claims), mesh
        before = self._sessions.get(key)
        if before is None or before[0] != made_of:
            before = self._sessions[key] = made_of, self._composed(key, workload, point.port, claims, mesh)
        return key, before[1]

    def keep(self, points: Iterable[Point]) -> None:
        """Forget all others."""
        kept = list(points)
        self._plumbing = _only(self._plumbing, {plumbing_key(point) for point in kept})
        self._sessions = _only(self._sessions, {sessions_key(point) for point in kept})
        self._single = _only(self._single, {sessions_key(point) for point in kept})

    def _composed(
        self, key: Key, workload: SteeredWorkload, port: int, claims: Sequence[Claim], mesh: IstioMesh
    ) -> JsonObject:
        """The object of all claims, of those that have one each."""
        if not claims:
            return sessions_object(workload, port, (), mesh)
        before, self._single[key] = self._single.get(key, {}), {}
        for claim in disjoint(claims):
            made_of = tuple(sorted(workload.selector.items())), mesh, claim
            self._single[key][made_of] = before.get(made_of) or sessions_object(workload, port, [claim], mesh)
        singles = list(self._single[key].values())
        composed = copy.deepcopy(sessions_object(workload, port, (), mesh))
        for index, patch in enumerate(composed["spec"]["configPatches"]):
            found = [rules for single in singles if (rules := _rules(single, index))]
            if found:
                every = {name: policy for rules in found for name, policy in rules["policies"].items()}
                patch["patch"]["value"]["typedConfig"]["shadowRules"] = {**found[0], "policies": every}
        return composed


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """Our objects in the API server, by what they are for."""

    plumbed: tuple[Point, ...] = ()
    """The points that have plumbing, or an object that stays though it is empty."""
    useless: tuple[Key, ...] = ()
    """Those that are for nothing that there is."""
    orphans: Mapping[Key, Point] = field(default_factory=dict)
    """Objects for sessions of points without plumbing."""


def existing(world: World, index: ClusterIndex) -> Existing:
    """Look at what is there."""
    plumbed: dict[Key, Point] = {}
    sessions: dict[Key, Point] = {}
    useless = []
    for key, document in sorted(world.filters.items()):
        role = _metadata(document, "labels").get(ROLE)
        if key.namespace not in world.namespaces or not any(role in roles for roles in ROLES.values()):
            continue
        point = _point_for(world, index, key, document)
        if point is None:
            useless.append(key)
        else:
            (sessions if role in ("sessions", "waypoint") else plumbed)[key] = point
    points = {point.place for point in plumbed.values()}
    return Existing(
        plumbed=tuple(plumbed.values()),
        useless=tuple(sorted(useless, key=lambda key: (_role(world, key) != "plumbing", key))),
        orphans={key: point for key, point in sessions.items() if point.place not in points},
    )


def wanted(
    points: Iterable[Point], claims: Mapping[Place, Sequence[Claim]], settings: PlanSettings, renderer: Renderer
) -> dict[Key, JsonObject]:
    """The objects of the points that have plumbing or get it, in the order to write them.

    A point's sessions come first: the sidecar that gets the plumbing finds them there.
    """
    mesh = istio_mesh(settings)
    if settings.delivery.by_route:
        return route_objects(points, claims, settings, mesh)
    places = {point.place: point for point in points}
    objects: dict[Key, JsonObject] = {}
    for place in sorted(places):
        objects |= [
            renderer.sessions(places[place], claims.get(place, ()), mesh),
            renderer.plumbing(places[place], mesh),
        ]
    renderer.keep(places.values())
    return objects


def is_as_wanted(document: JsonObject | None, desired: JsonObject) -> bool:
    """Whether the API server has it so. Labels and annotations of others may be there too."""
    if document is None or not _holds(document.get("spec"), desired["spec"], exactly=desired["kind"] == "EnvoyFilter"):
        return False
    return all(
        _metadata(document, part).get(name) == value
        for part in ("labels", "annotations")
        for name, value in desired["metadata"][part].items()
    )


def keys_of(point: Point, delivery: Delivery) -> tuple[Key, ...]:
    """The objects by which a point is steered."""
    return (object_key(point, delivery),) if delivery.by_route else (sessions_key(point), plumbing_key(point))


def steered_at(world: World, point: Point) -> frozenset[str]:
    """The sessions that proxies are told to steer at a point."""
    delivery = world.settings.delivery
    if delivery.by_route:
        return sessions_of(world.filters.get(object_key(point, delivery)))
    return policies(world.filters.get(sessions_key(point)))


def policies(document: JsonObject | None) -> frozenset[str]:
    """The sessions that an object has sidecars steer."""
    try:
        patches = (document or {})["spec"]["configPatches"]
        return frozenset(
            name
            for patch in patches
            for name in patch["patch"]["value"]["typedConfig"].get("shadowRules", {}).get("policies", {})
        )
    except (KeyError, TypeError, AttributeError):
        return frozenset()  # edited by hand: it is written anew


def _rules(document: JsonObject, index: int) -> JsonObject | None:
    """Where an object that we made has its sessions: of each mode in a patch of its own."""
    config = document["spec"]["configPatches"][index]["patch"]["value"]["typedConfig"]
    rules: JsonObject | None = config.get("shadowRules")
    return rules


def plumbing_key(point: Point) -> Key:
    """The namespace and name of a point's plumbing."""
    workload = point.workload
    return Key(workload.key.namespace, plumbing_name(workload.kind, workload.key.name, point.port))


def sessions_key(point: Point) -> Key:
    """The namespace and name of the object with a point's sessions."""
    workload = point.workload
    return Key(workload.key.namespace, sessions_name(workload.kind, workload.key.name, point.port))


def istio_mesh(settings: PlanSettings) -> IstioMesh:
    """What the objects need to know of the installation."""
    return IstioMesh(
        cluster_domain=settings.cluster_domain,
        agent_service=settings.agent,
        agent_port=settings.steer_port,
        trust_domain=settings.trust_domain,
    )


def _steered(point: Point) -> SteeredWorkload:
    workload = point.workload
    return SteeredWorkload(kind=workload.kind, key=workload.key, selector=dict(pod_labels(workload)))


def _point_for(world: World, index: ClusterIndex, key: Key, document: JsonObject) -> Point | None:
    """The point that an object of the mesh's delivery is for, if there is one and the object bears the right name."""
    delivery, role = world.settings.delivery, _metadata(document, "labels").get(ROLE)
    if role not in ROLES[delivery]:
        return None
    if delivery.by_route:
        point = point_of(index, key.namespace, _metadata(document, "annotations"))
        name = None if point is None else object_key(point, delivery)
    else:
        point = _point(index, key, document)
        name = None if point is None else (plumbing_key if role == "plumbing" else sessions_key)(point)
    return point if key == name else None


def _point(index: ClusterIndex, key: Key, document: JsonObject) -> Point | None:
    """The point that an object says it is for, if there is such a workload."""
    annotations = _metadata(document, "annotations")
    kind, _, name = str(annotations.get(WORKLOAD, "")).partition("/")
    port = str(annotations.get(PORT, ""))
    workload = index.workload(kind, Key(key.namespace, name))
    if workload is None or not pod_labels(workload) or not (port.isascii() and port.isdigit()):
        return None
    return Point(workload=workload, port=int(port))


def _holds(found: Any, wanted: Any, *, exactly: bool) -> bool:
    """Whether what is wanted is there; the API server adds defaults to kinds that have them."""
    if exactly:
        return bool(found == wanted)
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            name in found and _holds(found[name], value, exactly=False) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        same = isinstance(found, list) and len(found) == len(wanted)
        return same and all(_holds(a, b, exactly=False) for a, b in zip(found, wanted, strict=True))
    return bool(found == wanted)


def _role(world: World, key: Key) -> str:
    return str(_metadata(world.filters[key], "labels").get(ROLE, ""))


def _metadata(document: JsonObject, part: str) -> JsonObject:
    found = document.get("metadata", {}).get(part)
    return found if isinstance(found, dict) else {}


def _only(cache: dict[Key, T], keys: set[Key]) -> dict[Key, T]:
    return {key: value for key, value in cache.items() if key in keys}
