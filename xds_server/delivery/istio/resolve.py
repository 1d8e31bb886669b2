"""From a session's target to the workloads' ports that it steers. Pure.

A Service stands for every workload behind its selector, now and later; a workload for itself alone. A port is the container's
in the end, since that is what sidecars know: `inbound|8080||`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hairpin.model.session import Condition
from hairpin.model.suggest import did_you_mean
from hairpin.model.target import Target
from xds_server.delivery.istio.cluster_index import ClusterIndex, Selection, container_port, reference
from xds_server.delivery.istio.conditions import (
    NO_SELECTOR,
    NO_SERVICE,
    NO_SUCH_PORT,
    NO_SUCH_TARGET,
    NO_WORKLOAD,
    PORT_NOT_DECLARED,
    RefusedError,
    field_refusal,
    refusal,
    remark,
    waiting,
)
from xds_server.delivery.istio.points import Point, also_steered, protocol_remarks, steerable, without_covered
from xds_server.model.cluster import Key, ServiceFacts, ServicePortFacts, WorkloadFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where a target leads."""

    points: tuple[Point, ...]
    """None for a Service that has no workload yet."""
    workloads: tuple[WorkloadFacts, ...]
    """All that the target stands for, those without a port of their own included."""
    conditions: tuple[Condition, ...] = ()


def resolve(index: ClusterIndex, target: Target, *, sidecars: bool = True) -> Resolved:
    """The points of a target, with remarks.

    Args:
        index: the cluster.
        target: what is named.
        sidecars: whether its sidecars are to be told of sessions.

    Raises:
        RefusedError: there is nothing to steer there; the condition says why and what would help.
    """
    key = Key(target.namespace, target.name)
    if target.kind == "service":
        found, told = _points_of_service(index, key, target)
    else:
        found, told = _points_of_workload(index, key, target)
    points, unfit = [], []
    for point in found:
        try:
            told += steerable(index, point) if sidecars else []
        except RefusedError as error:
            unfit.append(error)
        else:
            points.append(point)
    if unfit and not points:
        raise unfit[0]
    told += [remark(error.condition.type, f"{error.condition.message}; its requests are not taken") for error in unfit]
    kept = without_covered(points)
    return Resolved(
        points=tuple(kept),
        workloads=tuple(point.workload for point in found),
        conditions=(*told, *also_steered(index, kept, points)),
    )


# A Service


def _points_of_service(index: ClusterIndex, key: Key, target: Target) -> tuple[list[Point], list[Condition]]:
    service = index.service(key)
    if service is None:
        raise refusal(NO_SUCH_TARGET, _unknown(key, target, [s.key.name for s in index.services(key.namespace)], index))
    if not service.selector:
        problem = "is a Service without a selector, so nothing says which workloads are behind it"
        raise field_refusal(NO_SELECTOR, "spec.target.name", key.name, problem, "name the workload: KIND/NAME")
    port = _port_of_service(service, target)
    conditions = protocol_remarks([Selection(service=service, port=port, number=None)], str(target))
    workloads = index.behind(service)
    if not workloads:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(service.selector.items()))
        message = f"no workload has pods with {labels}, which Service {key} selects"
        conditions.append(waiting(NO_WORKLOAD, f"{message}; its requests are steered as soon as one has"))
    points = []
    for workload in workloads:
        number = container_port(workload, port.target)
        if number is None:
            message = (
                f"{reference(workload)} declares no port {port.target!r}, which port {port.number} of {key} leads to"
            )
            conditions.append(remark(PORT_NOT_DECLARED, f"{message}; its requests are not taken"))
        else:
            points.append(Point(workload=workload, port=number))
    if workloads and not points:
        problem = f"leads to a port {port.target!r}, which no workload behind it declares"
        raise field_refusal(NO_SUCH_PORT, "spec.target.port", port.number, problem, "name it in the pods' template")
    return points, conditions


def _port_of_service(service: ServiceFacts, target: Target) -> ServicePortFacts:
    if target.port is None:
        if len(service.ports) == 1:
            return service.ports[0]
    else:
        for port in service.ports:
            if target.port in (port.number, port.name):
                return port
    raise _no_such_port(target, f"service/{service.key.name}", [_shown(p.number, p.name) for p in service.ports])


# A workload


def _points_of_workload(index: ClusterIndex, key: Key, target: Target) -> tuple[list[Point], list[Condition]]:
    workload = index.workload(target.kind, key)
    if workload is None:
        known = [w.key.name for w in index.workloads(key.namespace) if w.kind == target.kind]
        raise refusal(NO_SUCH_TARGET, _unknown(key, target, known, index))
    selections = index.selections(workload)
    selected = sorted({selection.number for selection in selections if selection.number is not None})
    number = _port_of_workload(workload, target, selected)
    leading = [selection for selection in selections if selection.number == number]
    if not leading:
        raise _no_service(workload, number, selections)
    conditions = protocol_remarks(leading, f"{reference(workload)}:{number}")
    return [Point(workload=workload, port=number)], conditions


def _port_of_workload(workload: WorkloadFacts, target: Target, selected: list[int]) -> int:
    if isinstance(target.port, int):
        return target.port
    if target.port is not None:
        named = container_port(workload, target.port)
        if named is not None:
            return named
    elif len(selected) == 1:
        return selected[0]
    elif not selected and len(workload.ports) == 1:
        return workload.ports[0].number
    declared = {port.number: port.name for port in workload.ports}
    numbers = selected if target.port is None and selected else sorted({*declared, *selected})
    raise _no_such_port(target, reference(workload), [_shown(number, declared.get(number, "")) for number in numbers])


def _no_service(workload: WorkloadFacts, number: int, selections: Iterable[Selection]) -> RefusedError:
    problem = f"of {reference(workload)} is no port that a Service leads to: its sidecar does not listen there"
    renumbered = [s for s in selections if s.port.number == number and s.number is not None]
    if renumbered:
        service, inside = renumbered[0].service.key.name, renumbered[0].number
        problem += f"; port {number} of Service {service} leads to {inside}"
        return field_refusal(NO_SERVICE, "spec.target.port", number, problem, f"name {inside}, or service/{service}")
    known = sorted({str(s.number) for s in selections if s.number is not None})
    remedy = f"name one of {', '.join(known)}" if known else "make a Service that selects its pods"
    return field_refusal(NO_SERVICE, "spec.target.port", number, problem, remedy)


# Both


def _unknown(key: Key, target: Target, known: list[str], index: ClusterIndex) -> str:
    kinds = [w.kind for w in index.workloads(key.namespace) if w.key == key]
    kinds += ["service"] if index.service(key) else []
    if kinds:
        hint = f"; there is {' and '.join(f'{kind}/{key.name}' for kind in kinds)}"
    else:
        hint = did_you_mean(key.name, known)
        hint += f"; there is {', '.join(f'{target.kind}/{name}' for name in known[:10])}" if known else ""
    return f"namespace {key.namespace} has no {target.kind} {key.name!r}{hint}"


def _no_such_port(target: Target, whose: str, known: list[str]) -> RefusedError:
    ports = ", ".join(known) or "none"
    if target.port is None:
        problem, remedy = "lacks a port", f"{whose} has {'several: ' if len(known) > 1 else ''}{ports}"
        return field_refusal(NO_SUCH_PORT, "spec.target.port", None, problem, remedy)
    hint = did_you_mean(str(target.port), [word for shown in known for word in shown.replace(")", "").split(" (")])
    return field_refusal(
        NO_SUCH_PORT, "spec.target.port", target.port, f"is not a port of it{hint}", f"{whose} has {ports}"
    )


def _shown(number: int, name: str) -> str:
    return f"{number} ({name})" if name else str(number)
