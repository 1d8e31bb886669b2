"""Who may fetch what: a proxy's certificate decides, not what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hairpin.model.mesh import AGENT, ENTRY, Mesh
from xds_server.delivery.ads import AGENT_GROUP, ENTRY_GROUP, agent_sidecar_group, sidecar_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def groups_by_identity(mesh: Mesh) -> dict[str, dict[str, str]]:
    """For each SPIFFE ID, the groups that it may fetch, by node id."""
    groups: dict[str, dict[str, str]] = {}
    for workload in mesh.workloads:
        node = f"sidecar~{workload.name}.{mesh.namespace}"
        groups.setdefault(mesh.identity(workload.name), {})[node] = sidecar_group(workload.name)
    agents = groups.setdefault(mesh.identity(AGENT), {})
    for agent in mesh.agents:
        agents[f"sidecar~{agent.name}.{mesh.namespace}"] = agent_sidecar_group(agent.name)
        agents[f"agent~{agent.name}.{mesh.namespace}"] = AGENT_GROUP
    groups.setdefault(mesh.identity(ENTRY), {})[f"entry~{ENTRY}.{mesh.namespace}"] = ENTRY_GROUP
    return groups


def admit(mesh: Mesh) -> Callable[[Iterable[str], str], str | None]:
    """A function from a peer's URI SANs and its node id to its group, None where it may have nothing."""
    groups = groups_by_identity(mesh)

    def group(uris: Iterable[str], node_id: str) -> str | None:
        return next((groups[uri][node_id] for uri in uris if node_id in groups.get(uri, {})), None)

    return group
