"""What in the mesh keeps a session's requests from being taken though all of it is written. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from hairpin.kubernetes.kinds import DELIVERED
from hairpin.model.delivery import Delivery
from hairpin.model.session import Condition
from xds_server.delivery.istio.cluster_index import covers, reference
from xds_server.delivery.istio.conditions import AGENT_HIDDEN, DRAINING, IGNORED, NOT_WRITTEN, remark, waiting
from xds_server.delivery.istio.objects import keys_of, plumbing_key
from xds_server.delivery.istio.points import Point
from xds_server.delivery.istio.world import PlanSettings, World
from xds_server.model.cluster import IstiodFacts, SessionFacts, SidecarFacts, WorkloadFacts

_DRAIN = timedelta(seconds=45)
"""Istio's `drainDuration`, by default."""


def obstacles(world: World, points: Sequence[Point]) -> list[Condition]:
    """What stands in the way of steering at these points."""
    if not points:
        return []
    return [*_ignored(world), *_hidden(world, points)]


def unwritten(world: World, points: Sequence[Point]) -> Iterator[Condition]:
    """The objects of these points that could not be written time and again."""
    delivery = world.settings.delivery
    found = [key for point in points for key in keys_of(point, delivery) if key in world.unwritten]
    if found:
        names, reason = ", ".join(map(str, found)), world.unwritten[found[0]]
        remedy = (
            "ask an operator for `hairpin install`, which gives the controller its rights, or to mend what is named"
        )
        yield waiting(NOT_WRITTEN, f"{DELIVERED[delivery].name} {names} can't be written: {reason}; {remedy}")


def draining(world: World, points: Sequence[Point], session: SessionFacts) -> Iterator[Condition]:
    """The points whose listeners changed for this session, or shortly before: what is open goes on by the old routes."""
    if world.settings.delivery is not Delivery.INBOUND:
        return
    for point in points:
        since = _plumbed_since(world, point)
        if since is not None and since > session.created - _DRAIN:
            message = f"{point} had no plumbing before {since:%H:%M:%S} UTC: on connections that callers have open, requests may"
            remedy = "`hairpin enable` puts the plumbing in place ahead"
            yield remark(DRAINING, f"{message} go to the application for {_DRAIN.seconds} s from then on; {remedy}")


def _plumbed_since(world: World, point: Point) -> datetime | None:
    created = world.filters.get(plumbing_key(point), {}).get("metadata", {}).get("creationTimestamp")
    return datetime.fromisoformat(created) if created else None


# A Sidecar that leaves the agent out


def _hidden(world: World, points: Sequence[Point]) -> Iterator[Condition]:
    if world.settings.delivery is not Delivery.INBOUND:
        return  # others are to see it, who are not known here
    for point in points:
        sidecar = sidecar_of(world, point.workload)
        host = agent_host(world.settings, point.workload.key.namespace)
        if sidecar is not None and not imports(sidecar, world.settings, point.workload.key.namespace):
            message = f"Sidecar {sidecar.key} hides the agent from {reference(point.workload)}, so it can't send requests there"
            yield waiting(AGENT_HIDDEN, f"{message}; add ./{host} to the hosts of its egress")


def sidecar_of(world: World, workload: WorkloadFacts) -> SidecarFacts | None:
    """The Sidecar that Istio takes for a workload: one that selects it, its namespace's, or the mesh's."""
    namespace, root = workload.key.namespace, world.settings.root_namespace
    there = sorted(
        (s for s in world.sidecars if s.key.namespace == namespace),
        key=lambda s: (s.selector is None, s.created, s.key),
    )
    for sidecar in there:
        if sidecar.selector is None or covers(sidecar.selector, workload.labels):
            return sidecar
    meshs = (s for s in world.sidecars if s.key.namespace == root and s.selector is None)
    return min(meshs, key=lambda s: (s.created, s.key), default=None)


def imports(sidecar: SidecarFacts, settings: PlanSettings, namespace: str) -> bool:
    """Whether a Sidecar lets the workloads of a namespace see its agent."""
    if sidecar.egress is None:
        return True
    host = agent_host(settings, namespace)
    return any(
        listener.port in (None, settings.steer_port) and _names(listener.hosts, namespace, host)
        for listener in sidecar.egress
    )


def agent_host(settings: PlanSettings, namespace: str) -> str:
    """The whole name of the Service of a namespace's agent."""
    return f"{settings.agent}.{namespace}.svc.{settings.cluster_domain}"


def _names(hosts: Sequence[str], namespace: str, host: str) -> bool:
    """As Istio reads `NAMESPACE/NAME`, with `~NAMESPACE/NAME` for those that are left out."""
    found = False
    for text in hosts:
        where, _, name = text.partition("/")
        out = where.startswith("~")
        where = where.removeprefix("~") or ("*" if out else "~")
        if where in (".", "*", namespace) and _is_of(host, name):
            if out:
                return False
            found = True
    return found


def _is_of(host: str, name: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*") else host == name


# An istiod that does not look at what is written


def _ignored(world: World) -> Iterator[Condition]:
    kind = DELIVERED[world.settings.delivery]
    resource = f"{kind.plural}.{kind.group}"
    deaf = [istiod for istiod in world.istiods if ignores(istiod, resource)]
    for istiod in sorted(deaf, key=lambda istiod: istiod.key):
        message = f"istiod {istiod.key} ignores {resource} (PILOT_IGNORE_RESOURCES is {istiod.ignored!r})"
        remedy = f"add {resource} to its PILOT_INCLUDE_RESOURCES"
        if len(deaf) == len(world.istiods):
            yield waiting(IGNORED, f"{message}, so no sidecar hears of sessions; ask an operator to {remedy}")
        else:
            yield remark(IGNORED, f"{message}, so the sidecars it serves hear of no session; {remedy}")


def ignores(istiod: IstiodFacts, resource: str) -> bool:
    """Whether an istiod does not look at a kind, `PLURAL.GROUP`."""
    return _listed(istiod.ignored, resource) and not _listed(istiod.included, resource)


def _listed(names: str, resource: str) -> bool:
    """As Istio reads its lists: with `*.` before it, a name is an end of others."""
    found = [name.strip() for name in names.split(",")] if names else []
    return any(resource.endswith(name[2:]) if name.startswith("*.") else resource == name for name in found)
