"""What a session may claim of a mesh: its target there, and which of its requests. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.conflict import Holding
from hairpin.model.environment import Environment, requests_of
from hairpin.model.match import Match
from hairpin.model.session import Mode
from hairpin.model.suggest import did_you_mean

if TYPE_CHECKING:
    from datetime import datetime

    from hairpin.model.mesh import Mesh, ServicePort, Workload
    from hairpin.model.session import SessionSpec
    from hairpin.model.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a session takes, or gets in copy: a port of a workload, and which of its requests."""

    workload: Workload
    port: ServicePort
    match: Match
    mirror: bool = False

    def held(self, session: str, owner: str, since: datetime | None) -> Holding:
        """The same as a holding, to be compared with others'."""
        return Holding(
            session=session,
            owner=owner,
            since=since,
            namespace=self.workload.namespace,
            workload=self.workload.name,
            port=self.port.number,
            match=self.match,
            mirror=self.mirror,
        )


def claim(mesh: Mesh, spec: SessionSpec) -> Claimed | None:
    """What a session of this spec takes; None if it takes no requests.

    Raises:
        NotFoundError: the mesh has no such target.
        InvalidFieldError: a field can't be used.
    """
    if spec.target is None or spec.mode is Mode.EGRESS:
        return None
    workload = _workload(mesh, spec.target)
    port = workload.port(spec.target.port)
    if port is None:
        known = ", ".join(f"{p.number} ({p.name})" for p in workload.ports)
        if spec.target.port is None:
            raise InvalidFieldError("spec.target.port", None, "lacks a port", f"{workload.name} has several: {known}")
        raise InvalidFieldError(
            "spec.target.port", spec.target.port, "is not a port of it", f"{workload.name} has {known}"
        )
    if not workload.steerable:
        problem = "has `steerable: false` in the mesh's file"
        raise InvalidFieldError("spec.target.name", workload.name, problem, "set it to true")
    mirror = spec.mode is Mode.MIRROR
    return Claimed(workload=workload, port=port, match=effective_match(mesh, spec), mirror=mirror)


def effective_match(mesh: Mesh, spec: SessionSpec) -> Match:
    """The environment's requests that satisfy the session's own match."""
    environment = Environment(spec.environment, mesh.routing_key) if spec.environment else None
    return requests_of(environment, spec.match)


def _workload(mesh: Mesh, target: Target) -> Workload:
    names = [workload.name for workload in mesh.workloads]
    if target.kind != "service":
        problem = "is nothing that this mesh has"
        raise InvalidFieldError("spec.target.kind", target.kind, problem, f"name a service: {', '.join(names)}")
    if target.namespace != mesh.namespace:
        raise NotFoundError(f"the mesh has no namespace {target.namespace!r}; its services are in {mesh.namespace!r}")
    workload = mesh.workload(target.name)
    if workload is None:
        hint = did_you_mean(target.name, names)
        raise NotFoundError(
            f"the mesh has no service {target.name!r} in namespace {target.namespace!r}{hint}; "
            f"it has {', '.join(names)}"
        )
    return workload
