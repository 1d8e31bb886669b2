"""What is known of a Kubernetes cluster, in neutral words: what the informers saw, for decisions that do no I/O.

Read from the API server's JSON in `sources.kubernetes.facts`; `delivery.istio.plan` decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from hairpin.model.environment import RoutingKey
from hairpin.model.session import SessionSpec, SessionStatus

WORKLOAD_KINDS = ("deployment", "statefulset", "daemonset", "rollout")
"""Those that make pods; a bare pod is a workload of its own, of kind `pod`."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """An object's namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As `NAMESPACE/NAME`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPort:
    """A port that a pod's template declares."""

    number: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFacts:
    """A Deployment, StatefulSet, DaemonSet, Rollout or bare Pod."""

    kind: str
    """In lower case: one of WORKLOAD_KINDS, or `pod`."""
    key: Key
    selector: Mapping[str, str] | None
    """`spec.selector.matchLabels`; None where it can't be put into labels (matchExpressions). A pod's: its labels."""
    labels: Mapping[str, str]
    """Of its pods, by its template."""
    service_account: str = "default"
    ports: tuple[ContainerPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePortFacts:
    """A port of a Service."""

    number: int
    name: str = ""
    target: int | str
    """`targetPort`: a number, or the name of a container's port."""
    app_protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """A Service. Without a selector it has no workloads."""

    key: Key
    selector: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[ServicePortFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """A pod."""

    key: Key
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    owner: str = ""
    """`KIND/NAME` of its controller, in lower case (`replicaset/checkout-5d9c`); empty for a bare pod."""
    ready: bool = False
    ready_since: datetime | None = None
    """Since when it is ready, or not."""
    ip: str = ""
    sidecar: bool = False
    """Whether it has Istio's proxy."""
    terminating: bool = False
    ports: tuple[ContainerPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyFilterFacts:
    """An EnvoyFilter that somebody else wrote: what is needed to see that it may get in the way of steering."""

    key: Key
    selector: Mapping[str, str] = field(default_factory=dict)
    """Empty: every workload of its namespace."""
    inbound: bool = False
    """Whether it patches SIDECAR_INBOUND (or ANY) listeners, filters or routes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressHosts:
    """What a Sidecar's egress listener lets see."""

    port: int | None = None
    """None: services' ports of any number."""
    hosts: tuple[str, ...] = ()
    """As `NAMESPACE/NAME`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarFacts:
    """A Sidecar, by which somebody says what workloads' proxies are to know of."""

    key: Key
    created: datetime
    selector: Mapping[str, str] | None = None
    """None: every workload of its namespace; in the root namespace, of those that have none."""
    egress: tuple[EgressHosts, ...] | None = None
    """None: everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IstiodFacts:
    """An istiod, by the settings that keep it from seeing what is written for it."""

    key: Key
    ignored: str = ""
    """PILOT_IGNORE_RESOURCES."""
    included: str = ""
    """PILOT_INCLUDE_RESOURCES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """A Session as the API server has it, and how its certificate stands."""

    key: Key
    created: datetime
    spec: SessionSpec | None
    """None where it can't be read: `problem` says why."""
    problem: str = ""
    """What is wrong with the spec: a field, its value, a remedy."""
    status: SessionStatus = field(default_factory=SessionStatus)
    """As it was written last; empty where it can't be read: it is written anew."""
    uid: str = ""
    resource_version: str = ""
    deleting: bool = False
    """Whether its deletion waits for someone's finalizer: to us it is gone."""
    request_key: str = ""
    """The digest of the key in its certificate request; empty: none yet."""
    request_problem: str = ""
    """Why the request can't be signed."""
    certificate_key: str = ""
    """The digest of the key in its certificate; empty: none."""
    certificate_end: datetime | None = None
    """When the certificate ends."""

    @property
    def id(self) -> str:
        """What tunnel, certificate and policy call it. Two labels: neither a name nor a namespace has a dot."""
        return f"{self.key.name}.{self.key.namespace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentFacts:
    """An Environment object. An environment without one has the mesh's routing key and is everyone's."""

    name: str
    routing_key: RoutingKey | None = None
    """None: the mesh's."""
    members: frozenset[str] = frozenset()
    """Who may hold its sessions; empty: everyone."""
    problem: str = ""
    """Why it can't be read; its sessions are refused then."""
