"""What the controller decides by, and what it decides: the two ends of `plan(world, now) -> Plan`. Values, no behaviour.

A world is what the informers, the agents' reports and the match validator know at one moment. Nothing else enters a plan: no
memory of the last one, so a controller that was killed anywhere is mended by the next plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hairpin.model.delivery import Delivery
from hairpin.model.environment import RoutingKey
from hairpin.model.match import Match
from hairpin.model.mesh import AGENT
from hairpin.model.session import SessionStatus
from xds_server.model.cluster import (
    EnvironmentFacts,
    EnvoyFilterFacts,
    IstiodFacts,
    Key,
    PodFacts,
    ServiceFacts,
    SessionFacts,
    SidecarFacts,
    WorkloadFacts,
)

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAddress:
    """Where operators publish the agents' tunnel and egress ports. `{pod}` and `{namespace}` in the host are replaced."""

    host: str
    tunnel_port: int
    egress_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """What operators choose, and what the installation fixes."""

    certificate_authority: str
    """The CA of sessions and agents, in PEM: a certificate of another one is signed anew."""
    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    """Whose EnvoyFilters hold for the whole mesh."""
    delivery: Delivery = Delivery.INBOUND
    routing_key: RoutingKey = field(default_factory=RoutingKey)
    """Of environments that have no object of their own."""
    agent: str = AGENT
    """The name of each namespace's steering agent: Service, StatefulSet and service account."""
    steer_port: int = 8080
    """Of the agent's Service."""
    tunnel_port: int = 9443
    egress_port: int = 9444
    published: PublishedAddress | None = None
    """None: laptops come through the API server's port-forward."""
    shortest_lease: timedelta = timedelta(seconds=1)
    longest_lease: timedelta = timedelta(hours=1)
    start_grace: timedelta = timedelta(seconds=30)
    """How long a new session may take to bring its tunnel up."""
    malformed_grace: timedelta = timedelta(seconds=60)
    """How long a session that can't be read stays, so that its owner sees why."""
    report_grace: timedelta = timedelta(seconds=15)
    """How long a new leader believes the last status of a replica that has not reported yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that is known. The order within a collection means nothing."""

    settings: PlanSettings
    leading_since: datetime
    """When this replica became the leader. Deadlines that passed while nobody led count from here."""
    namespaces: frozenset[str]
    """Those that are served; objects elsewhere are left alone."""
    sessions: Collection[SessionFacts] = ()
    environments: Collection[EnvironmentFacts] = ()
    services: Collection[ServiceFacts] = ()
    workloads: Collection[WorkloadFacts] = ()
    """Those that make pods. Bare pods are found among the pods."""
    pods: Collection[PodFacts] = ()
    """The agents' replicas among them: those of the StatefulSets `hairpin-agent` and `hairpin-agent-as-ACCOUNT`."""
    filters: Mapping[Key, JsonObject] = field(default_factory=dict)
    """The objects of the mesh's delivery that are labelled as ours, whole: EnvoyFilters, or a waypoint's routes."""
    foreign_filters: Collection[EnvoyFilterFacts] = ()
    """The others, of the served namespaces and of the mesh's root namespace."""
    sidecars: Collection[SidecarFacts] = ()
    """Of the served namespaces and of the mesh's root namespace."""
    istiods: Collection[IstiodFacts] = ()
    """Those that are Deployments of the root namespace. None: it runs elsewhere, or they may not be read."""
    unwritten: Mapping[Key, str] = field(default_factory=dict)
    """The objects of the delivery that could not be written several times in a row, and why."""
    reports: Mapping[Key, frozenset[str]] = field(default_factory=dict)
    """By the agent's pod, the ids of the sessions whose tunnels are up there. A replica that has not reported since
    `leading_since` has no entry; one whose reports broke off has an empty set: most likely its process died."""
    versions: Mapping[Key, str] = field(default_factory=dict)
    """By the agent's pod, which hairpin it said that it is."""
    judged: Mapping[Match, str] = field(default_factory=dict)
    """What the match validator said of a session's own match: empty if Envoy takes it, else the error's text."""
    admission_policy: bool = True
    """Whether the API server checks owners for us. Without it nothing is certified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that should be. Each part is safe to do alone, again, or not at all: the next plan has the rest."""

    statuses: Mapping[Key, SessionStatus] = field(default_factory=dict)
    """Every living session's status, changed or not: `changed_statuses` has those to write."""
    certify: frozenset[Key] = frozenset()
    """Sessions whose request is to be signed now, for the one DNS name `status.id`; the certificate goes into the
    status that is written."""
    validate: frozenset[Match] = frozenset()
    """Matches to be validated: the verdicts belong into `World.judged`."""
    end: Mapping[Key, str] = field(default_factory=dict)
    """Sessions to be deleted (of the uid that is in the world), with the reason in words."""
    apply: Mapping[Key, JsonObject] = field(default_factory=dict)
    """Objects of the delivery that are missing or different, in the order to write them."""
    delete: tuple[Key, ...] = ()
    """Those that should not be, in the order to delete them."""
    next: datetime | None = None
    """When time alone changes the plan."""
    remarks: tuple[str, ...] = ()
    """For the log."""

    @property
    def settled(self) -> bool:
        """Whether there is nothing to do beside statuses."""
        return not (self.certify or self.validate or self.end or self.apply or self.delete)


def changed_statuses(world: World, plan: Plan) -> dict[Key, SessionStatus]:
    """The statuses that are not as the API server has them, or get a certificate."""
    before = {session.key: session.status for session in world.sessions}
    return {key: status for key, status in plan.statuses.items() if key in plan.certify or status != before.get(key)}
