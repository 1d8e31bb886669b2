"""Whole sidecars of the embedded mesh: every resource of a workload's, an agent's and the entry's proxy. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hairpin.model.mesh import AGENT, ENTRY, Mesh
from xds_server.generate import outbound
from xds_server.generate.inbound import inbound_cluster, inbound_listener, inbound_tcp_listener
from xds_server.generate.mirror import copies_service
from xds_server.generate.steer import Claim, Steering, SteeringPoint, match_filters, steer
from xds_server.generate.tls import upstream_tls
from xds_server.model.resource import Resource
from xds_server.model.type_url import TypeUrl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import betterproto2

    from hairpin.model.mesh import AgentReplica, ServicePort, SocketAddress, Workload

AGENT_PORT = 80
"""The port of the agent's Service."""


@dataclass(frozen=True, slots=True)
class _Service:
    """A port of a Service, as callers see it."""

    cluster: str
    hosts: list[str]
    identity: str
    sidecars: tuple[SocketAddress, ...]


def agent_cluster(mesh: Mesh) -> str:
    """The cluster of the agent's Service."""
    return outbound.cluster_name(AGENT, mesh.namespace, AGENT_PORT)


def steering_point(mesh: Mesh, port: ServicePort) -> SteeringPoint:
    """A workload's port, for `steer`."""
    return SteeringPoint(
        port=port.number,
        app=port.app,
        agent_cluster=agent_cluster(mesh),
        agent_transport=upstream_tls(mesh.identity(AGENT)),
    )


def workload_resources(mesh: Mesh, workload: Workload) -> list[Resource]:
    """What a workload's sidecar gets, but for endpoints and matches, which change at other times."""
    resources: list[Resource] = []
    for port in workload.ports:
        resources.append(_resource(TypeUrl.CLUSTER, inbound_cluster(port.number, port.app)))
        steering: Steering | None = None
        if workload.steerable:
            steering = steer(steering_point(mesh, port), ())
            resources += [_resource(TypeUrl.CLUSTER, cluster) for cluster in steering.clusters]
        listener = inbound_listener(port.number, port.inbound, steering=steering)
        resources.append(_resource(TypeUrl.LISTENER, listener))
    return resources + outbound_resources(mesh, workload.outbound)


def agent_resources(mesh: Mesh, agent: AgentReplica) -> list[Resource]:
    """What an agent's sidecar gets: only steered workloads may send to the agent.

    Its inbound side is TCP: the agent itself speaks HTTP with the target's sidecar, and one more HTTP hop would cost a
    sixth of a steered request's CPU (docs/decisions/0006).
    """
    steered = [mesh.identity(workload.name) for workload in mesh.workloads if workload.steerable]
    return [
        _resource(TypeUrl.CLUSTER, inbound_cluster(AGENT_PORT, agent.steer)),
        _resource(TypeUrl.LISTENER, inbound_tcp_listener(AGENT_PORT, agent.inbound, allowed=steered)),
        *outbound_resources(mesh, agent.outbound, passthrough=False),
    ]


def entry_resources(mesh: Mesh) -> list[Resource]:
    """What the mesh's entry gets: its Service for every host, the other Services by theirs."""
    services = list(_services(mesh))
    workload = mesh.workload(mesh.entry.service)
    if workload is None:
        raise ValueError(mesh.entry.service)
    default = outbound.cluster_name(workload.name, workload.namespace, workload.ports[0].number)
    hosts = [outbound.service_host(s.cluster, s.hosts, unwrap=False) for s in services if s.hosts]
    hosts.append(outbound.entry_host(default))
    clusters = [_resource(TypeUrl.CLUSTER, outbound.service_cluster(s.cluster, s.identity)) for s in services]
    return [
        *clusters,
        _resource(TypeUrl.LISTENER, outbound.entry_listener(mesh.entry.address)),
        _resource(TypeUrl.ROUTE_CONFIGURATION, outbound.route_configuration(ENTRY, hosts)),
    ]


def outbound_resources(mesh: Mesh, address: SocketAddress, *, passthrough: bool = True) -> list[Resource]:
    """A sidecar's outbound side; without `passthrough`, to the mesh's own Services alone."""
    services = list(_services(mesh))
    hosts = [outbound.service_host(s.cluster, s.hosts, unwrap=True) for s in services if s.hosts]
    hosts.append(outbound.passthrough_host() if passthrough else outbound.block_all_host())
    clusters = [outbound.service_cluster(s.cluster, s.identity) for s in services]
    clusters += [outbound.unwrap_cluster(), *([outbound.passthrough_cluster()] if passthrough else [])]
    return [
        *(_resource(TypeUrl.CLUSTER, cluster) for cluster in clusters),
        _resource(TypeUrl.LISTENER, outbound.outbound_listener(address, passthrough=passthrough)),
        _resource(TypeUrl.LISTENER, outbound.unwrap_listener(passthrough=passthrough)),
        _resource(TypeUrl.ROUTE_CONFIGURATION, outbound.route_configuration(outbound.OUTBOUND, hosts)),
    ]


def endpoint_resources(mesh: Mesh, ready_agents: frozenset[str]) -> list[Resource]:
    """Every Service's endpoints; of the agent's replicas, those that are ready."""
    return [
        _resource(TypeUrl.CLUSTER_LOAD_ASSIGNMENT, outbound.service_endpoints(service.cluster, service.sidecars))
        for service in _services(mesh, ready_agents)
    ]


def copies_endpoints(mesh: Mesh, workload: Workload, ready_agents: frozenset[str]) -> list[Resource]:
    """The agent's, once more for each steered port of a workload: its copies have clusters of their own."""
    agents = [agent.inbound for agent in mesh.agents if agent.name in ready_agents]
    names = [copies_service(agent_cluster(mesh), port.number) for port in workload.ports if workload.steerable]
    return [_resource(TypeUrl.CLUSTER_LOAD_ASSIGNMENT, outbound.service_endpoints(name, agents)) for name in names]


def match_resources(mesh: Mesh, port: ServicePort, claims: Sequence[Claim]) -> list[Resource]:
    """A steered port's discovered filters."""
    found = match_filters(steering_point(mesh, port), claims)
    return [Resource.of(TypeUrl.EXTENSION_CONFIG, extension.name, bytes(extension)) for extension in found]


def _services(mesh: Mesh, ready_agents: frozenset[str] = frozenset()) -> Iterator[_Service]:
    for workload in mesh.workloads:
        for port in workload.ports:
            default = port.number == 80 or len(workload.ports) == 1  # noqa: PLR2004 # HTTP's own port
            yield _Service(
                cluster=outbound.cluster_name(workload.name, workload.namespace, port.number),
                hosts=outbound.domains(workload.name, workload.namespace, port.number, default=default),
                identity=mesh.identity(workload.name),
                sidecars=(port.inbound,),
            )
    yield _Service(
        cluster=agent_cluster(mesh),
        hosts=[],  # nobody calls the agent by name
        identity=mesh.identity(AGENT),
        sidecars=tuple(agent.inbound for agent in mesh.agents if agent.name in ready_agents),
    )


def _resource(type_url: TypeUrl, message: betterproto2.Message) -> Resource:
    name = (
        getattr(message, "cluster_name", "")
        if type_url is TypeUrl.CLUSTER_LOAD_ASSIGNMENT
        else getattr(message, "name", "")
    )
    return Resource.of(type_url, name, bytes(message))
