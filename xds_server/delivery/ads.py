"""Delivery by ADS to the embedded mesh: from sessions to snapshots, one per proxy identity.

What depends on sessions is little: the match filters of each steered port, the agent's egress policy, the agent's endpoints. The
rest is encoded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hairpin.model.session import Mode
from xds_server.generate.egress import egress_resource
from xds_server.generate.sidecar import (
    agent_resources,
    copies_endpoints,
    endpoint_resources,
    entry_resources,
    match_resources,
    workload_resources,
)
from xds_server.generate.steer import Claim
from xds_server.model.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hairpin.model.match import Match
    from hairpin.model.mesh import Mesh, ServicePort, Workload
    from hairpin.model.session import Session
    from xds_server.cache.snapshot_cache import SnapshotCache
    from xds_server.model.resource import Resource


def sidecar_group(workload: str) -> str:
    """The cache's group of a workload's sidecars."""
    return f"sidecar/{workload}"


def agent_sidecar_group(replica: str) -> str:
    """The cache's group of an agent replica's sidecar: replicas differ by their ports on loopback."""
    return f"agent-sidecar/{replica}"


AGENT_GROUP = "agent"
ENTRY_GROUP = "entry"


class Sessions(Protocol):
    """What the delivery reads of the sessions."""

    @property
    def sessions(self) -> Sequence[Session]:
        """All of them."""

    @property
    def connected_agents(self) -> frozenset[str]:
        """The agent's replicas that are ready."""

    def active(self, workload: str, port: int) -> Sequence[tuple[Session, Match]]:
        """The sessions to be steered at this port, with the requests they take."""


class AdsDelivery:
    """Keeps the cache's snapshots in step with the sessions."""

    def __init__(self, mesh: Mesh, sessions: Sessions, cache: SnapshotCache) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._cache = cache
        self._static: dict[str, list[Resource]] = {
            **{sidecar_group(w.name): workload_resources(mesh, w) for w in mesh.workloads},
            **{agent_sidecar_group(a.name): agent_resources(mesh, a) for a in mesh.agents},
            ENTRY_GROUP: entry_resources(mesh),
        }
        self._ready: frozenset[str] | None = None
        self._endpoints: list[Resource] = []
        self._copies: dict[str, list[Resource]] = {}
        """By workload, the agent's endpoints for its copies."""
        self._encoded: dict[tuple[str, int], tuple[list[Claim], list[Resource]]] = {}
        """By workload and port, the match filters and the claims that it was made of: encoding is what takes time."""

    def refresh(self) -> None:
        """Bring every snapshot up to date. What is the same stays the same, so proxies hear of changes alone."""
        ready = self._sessions.connected_agents
        if ready != self._ready:
            self._ready = ready
            self._endpoints = endpoint_resources(self._mesh, ready)
            self._copies = {w.name: copies_endpoints(self._mesh, w, ready) for w in self._mesh.workloads}
        for workload in self._mesh.workloads:
            self._set(sidecar_group(workload.name), [*self._copies[workload.name], *self._matches(workload)])
        for group in self._static:
            if not group.startswith("sidecar/"):
                self._set(group, [])
        self._cache.set(
            AGENT_GROUP, Snapshot.of([egress_resource(session.name for session in self._sessions.sessions)])
        )

    def _matches(self, workload: Workload) -> list[Resource]:
        if not workload.steerable:
            return []
        return [resource for port in workload.ports for resource in self._match(workload, port)]

    def _match(self, workload: Workload, port: ServicePort) -> list[Resource]:
        claims = [
            Claim(
                session=session.name,
                created=session.created,
                match=match,
                mirror=session.spec.mode is Mode.MIRROR,
            )
            for session, match in self._sessions.active(workload.name, port.number)
        ]
        key = workload.name, port.number
        before = self._encoded.get(key)
        if before is None or before[0] != claims:
            before = self._encoded[key] = claims, match_resources(self._mesh, port, claims)
        return before[1]

    def _set(self, group: str, dynamic: list[Resource]) -> None:
        self._cache.set(group, Snapshot.of([*self._static[group], *self._endpoints, *dynamic]))
