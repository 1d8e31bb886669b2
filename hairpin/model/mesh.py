"""Mesh: the embedded mesh's workloads, agents and addresses, as `mesh.yaml` gives them and as the mesh runs.

One format for both: what a file leaves out (addresses, mostly) is filled in when the mesh comes up, and written down whole
for the control plane. Names follow Istio's: a Service's port, an inbound listener, an outbound listener.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hairpin.model.environment import RoutingKey

AGENT = "hairpin-agent"
"""The name of the agent's Service and service account."""


@dataclass(frozen=True, slots=True, order=True)
class SocketAddress:
    """An address that a process of the mesh listens on."""

    host: str
    port: int

    def __str__(self) -> str:
        """As `HOST:PORT`."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A port of a Service."""

    number: int
    """The Service's port: what callers name, `http://checkout:80/`."""
    name: str
    app: SocketAddress
    """Where the application listens."""
    inbound: SocketAddress
    """Where its sidecar takes the mesh's mutual TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A Service with its one workload and its sidecar."""

    name: str
    namespace: str
    ports: tuple[ServicePort, ...]
    outbound: SocketAddress
    """Where the sidecar takes the application's calls: an HTTP proxy and, for a raw connection, routing by host."""
    command: tuple[str, ...] = ()
    """What runs the application; empty where the user runs it. `{port}` and `{port:NAME}` are replaced."""
    steerable: bool = True
    """Whether its sidecar has the filters and routes that steering needs (what `hairpin enable` puts in place)."""

    def port(self, port: int | str | None) -> ServicePort | None:
        """The port of this number or name; with None, the only one."""
        if port is None:
            return self.ports[0] if len(self.ports) == 1 else None
        return next((p for p in self.ports if port in (p.number, p.name)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReplica:
    """One replica of the agent, with its sidecar."""

    name: str
    namespace: str
    steer: SocketAddress
    """Plain HTTP, from its own sidecar alone."""
    tunnel: SocketAddress
    egress: SocketAddress
    ready: SocketAddress
    """HTTP readiness, as a kubelet would ask."""
    inbound: SocketAddress
    """The sidecar's, in front of `steer`."""
    outbound: SocketAddress
    """The sidecar's: how laptops' connections enter the mesh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The mesh's entry: plain HTTP on loopback; other Services are reached by their Host."""

    service: str
    address: SocketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Where xds_server listens."""

    xds: SocketAddress
    api: SocketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The whole mesh."""

    name: str
    namespace: str
    trust_domain: str
    routing_key: RoutingKey
    entry: Entry
    control_plane: ControlPlane
    workloads: tuple[Workload, ...]
    agents: tuple[AgentReplica, ...]
    developers: tuple[str, ...] = field(default=())

    def workload(self, name: str) -> Workload | None:
        """The workload of this name."""
        return next((w for w in self.workloads if w.name == name), None)

    def identity(self, service_account: str) -> str:
        """The SPIFFE ID of a service account in the mesh's namespace."""
        return spiffe_id(self.trust_domain, self.namespace, service_account)


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> str:
    """A workload's identity, as Istio writes it."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


ENTRY = "entry"
"""The service account of the mesh's entry."""
