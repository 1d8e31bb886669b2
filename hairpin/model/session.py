"""Session: one developer's claim on a target's requests, or on the mesh's egress alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from hairpin.model.environment import RoutingKey
from hairpin.model.match import Match
from hairpin.model.target import Target
from hairpin.model.version import UNSTATED, Version


class Mode(StrEnum):
    """What a session does."""

    STEAL = "steal"
    """Requests come to the laptop, which answers."""
    MIRROR = "mirror"
    """A copy of each request comes to the laptop; the cluster answers."""
    EGRESS = "egress"
    """No requests: the laptop calls into the mesh."""


class Phase(StrEnum):
    """Where a session stands."""

    PENDING = "Pending"
    """Claimed and certified; no tunnel yet."""
    READY = "Ready"
    """The tunnel is up; nothing is steered: the process does not listen yet, or the mode takes no requests."""
    ACTIVE = "Active"
    """Requests are steered to the laptop."""
    LOST = "Lost"
    """The tunnel went down; the lease runs out."""
    REFUSED = "Refused"
    """Someone else holds the requests, or they can't be taken; a condition says why. Only where claims are objects."""


class EgressIdentity(StrEnum):
    """As whom a session's connections leave through the mesh."""

    AGENT = "agent"
    """The agent's service account."""
    TARGET = "target"
    """The target's: where an agent runs under that account, by an operator's choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """What the laptop asks for and keeps up to date."""

    mode: Mode = Mode.STEAL
    target: Target | None = None
    """None in mode `egress`."""
    environment: str | None = None
    """The name of a feature environment; its routing key is the mesh's."""
    match: Match | None = None
    """What requests must satisfy beside the environment. One of the two is needed but in mode `egress`."""
    certificate_request: str = ""
    """A CSR in PEM; only its key is read."""
    local_port: int | None = None
    """The port on the laptop that the process listens on; None while it does not: then nothing is steered."""
    lease_seconds: int = 10
    """How long the session outlives its tunnel."""
    owner: str = ""
    """In Kubernetes: whose the claim is. The API server refuses any name but the claimant's own (an admission policy)."""
    identity: EgressIdentity = EgressIdentity.AGENT
    """As whom the laptop's connections leave through the mesh."""
    client: Version = UNSTATED
    """Which hairpin the laptop runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAddress:
    """Where one replica of the agent takes tunnels and egress."""

    name: str
    """In Kubernetes its pod's."""
    host: str
    """Empty: through the API server's port-forward to the pod."""
    tunnel_port: int
    egress_port: int
    version: str = ""
    """Which hairpin it runs; empty: it has not said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressAddress:
    """Where one replica of an egress-only agent takes the laptop's connections."""

    name: str
    """Its pod's."""
    host: str
    """Empty: through the API server's port-forward to the pod."""
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A remark of the control plane on a session, for its owner: `type` is a CamelCase word, `message` a sentence."""

    type: str
    message: str
    status: str = "True"
    """`True`, `False` or `Unknown`, as Kubernetes has it."""
    reason: str = ""
    """A CamelCase word, for programs: `Refused` where it is why the session is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """What the control plane says. It alone writes it."""

    id: str = ""
    """What tunnel, certificate and policy call it; empty: the session's name. In Kubernetes NAME.NAMESPACE."""
    phase: Phase = Phase.PENDING
    certificate: str = ""
    """The session's certificate chain in PEM; its only SAN is the session's name."""
    certificate_authority: str = ""
    """What the laptop trusts at the agent, in PEM."""
    agent_identity: str = ""
    """The URI SAN that the agent's certificate bears."""
    agents: tuple[AgentAddress, ...] = ()
    """One per replica; the laptop keeps a tunnel to each."""
    egress: tuple[EgressAddress, ...] = ()
    """Where the laptop's connections leave with `identity: target`, one per replica; empty: at `agents`."""
    egress_identity: str = ""
    """The URI SAN that those agents' certificates bear; empty: `agent_identity`."""
    tunnels: tuple[str, ...] = ()
    """The replicas to which a tunnel is up."""
    last_seen: datetime | None = None
    """When a tunnel was last seen up."""
    resolved_target: str = ""
    """The target as the mesh knows it: `default/checkout:8080`."""
    routing_key: RoutingKey | None = None
    """What marks the requests of the session's environment; None: it has none, or the control plane does not say."""
    conditions: tuple[Condition, ...] = ()
    server: Version = UNSTATED
    """Which hairpin the control plane is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One claim. Its name is a DNS label, assigned by the control plane."""

    name: str
    namespace: str
    owner: str
    """Who the API says created it, never what the client claims."""
    created: datetime
    spec: SessionSpec
    status: SessionStatus = field(default_factory=SessionStatus)

    @property
    def id(self) -> str:
        """What tunnel, certificate and policy call it."""
        return self.status.id or self.name
