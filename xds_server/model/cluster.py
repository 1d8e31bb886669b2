"""What is known of a Kubernetes cluster, in neutral words: what the informers saw, for decisions that do no I/O.

Read from the API server's JSON in `sources.kubernetes.facts`; `delivery.istio.plan` decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
