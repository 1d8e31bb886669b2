"""What the informers know of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hairpin.errors import InvalidFieldError
from hairpin.kubernetes import kinds
from hairpin.kubernetes.admission import POLICY
from hairpin.kubernetes.installation import AUTHORITY, AUTHORITY_KEY, OURS, PART_OF
from hairpin.model.egress import POLICY_NAME, Action, EgressPolicy
from hairpin.model.egress_json import egress_policy_from_json
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
from xds_server.sources.kubernetes.facts import (
    environment_facts,
    envoy_filter_facts,
    istiod_facts,
    pod_facts,
    service_facts,
    session_facts,
    sidecar_facts,
    workload_facts,
)
from xds_server.sources.kubernetes.informer import Informer

if TYPE_CHECKING:
    from hairpin.kubernetes.api import Api, JsonObject
    from hairpin.kubernetes.kinds import Kind

_WORKLOADS = {
    "deployment": kinds.DEPLOYMENTS,
    "statefulset": kinds.STATEFUL_SETS,
    "daemonset": kinds.DAEMON_SETS,
    "rollout": kinds.ROLLOUTS,
}
ISTIOD = "app=istiod"
"""The label of istiod's Deployments, of every revision."""
_DENY_ALL = EgressPolicy(default=Action.DENY)


class Signal:
    """Tells any number of waiters that something changed; many changes are one."""

    def __init__(self) -> None:
        self._events: list[asyncio.Event] = []

    def subscribe(self) -> asyncio.Event:
        """An event that is set by each change; its owner clears it."""
        event = asyncio.Event()
        event.set()
        self._events.append(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """No longer."""
        self._events.remove(event)

    def set(self) -> None:
        """Something changed."""
        for event in self._events:
            event.set()


class NamespaceWatch:
    """The informers of one served namespace."""

    def __init__(
        self, api: Api, namespace: str, changed: Callable[[], None], delivered: Kind = kinds.ENVOY_FILTERS
    ) -> None:
        inform: Callable[..., Informer[Any]] = partial(Informer, api, changed=changed, namespace=namespace)
        self.namespace = namespace
        self.sessions: Informer[SessionFacts] = inform(kinds.SESSIONS, parse=session_facts)
        self.policies: Informer[EgressPolicy] = inform(kinds.EGRESS_POLICIES, parse=_egress_policy)
        self.services: Informer[ServiceFacts] = inform(kinds.SERVICES, parse=service_facts)
        self.pods: Informer[PodFacts] = inform(kinds.PODS, parse=pod_facts)
        self.filters: Informer[JsonObject | EnvoyFilterFacts] = inform(kinds.ENVOY_FILTERS, parse=_filter)
        self.delivered: Informer[Any] = self.filters
        """What the mesh's delivery writes: EnvoyFilters, among those of others, or a waypoint's routes, ours alone."""
        if delivered is not kinds.ENVOY_FILTERS:
            self.delivered = inform(delivered, parse=_whole, labels=f"{PART_OF}={OURS[PART_OF]}")
        self.sidecars: Informer[SidecarFacts] = inform(kinds.SIDECARS, parse=sidecar_facts)
        self.authority: Informer[str] = inform(kinds.CONFIG_MAPS, parse=_authority, fields=f"metadata.name={AUTHORITY}")
        self.workloads: dict[str, Informer[WorkloadFacts]] = {
            kind: inform(resource, parse=partial(workload_facts, kind)) for kind, resource in _WORKLOADS.items()
        }

    @property
    def informers(self) -> list[Informer[Any]]:
        """All of them."""
        some: list[Informer[Any]] = [self.sessions, self.policies, self.services, self.pods]
        some += [self.filters, self.sidecars]
        if self.delivered is not self.filters:
            some.append(self.delivered)
        return [*some, self.authority, *self.workloads.values()]

    @property
    def synced(self) -> bool:
        """Whether all that a plan needs is known.

        Rollouts may be nobody's here, and so may be the right to see them, or Sidecars: an older installation's role has none.
        """
        optional = self.workloads["rollout"], self.sidecars
        return all(informer.synced or (informer in optional and informer.problem) for informer in self.informers)

    @property
    def policy(self) -> EgressPolicy | None:
        """The namespace's egress policy."""
        return self.policies.get(Key(self.namespace, POLICY_NAME))


class ClusterWatch:
    """All informers of a controller, and a signal that is set at each change.

    Args:
        api: the API server.
        namespaces: those that are served.
        root_namespace: whose EnvoyFilters hold for the whole mesh.
        delivered: the kind of object that the mesh's delivery writes.
    """

    def __init__(
        self, api: Api, namespaces: frozenset[str], root_namespace: str, delivered: Kind = kinds.ENVOY_FILTERS
    ) -> None:
        self.signal = Signal()
        inform: Callable[..., Informer[Any]] = partial(Informer, api, changed=self.signal.set)
        self.namespaces = {name: NamespaceWatch(api, name, self.signal.set, delivered) for name in sorted(namespaces)}
        self.environments: Informer[EnvironmentFacts] = inform(kinds.ENVIRONMENTS, parse=environment_facts)
        self.root_filters: Informer[JsonObject | EnvoyFilterFacts] = inform(
            kinds.ENVOY_FILTERS, parse=_filter, namespace=root_namespace
        )
        self.root_sidecars: Informer[SidecarFacts] = inform(
            kinds.SIDECARS, parse=sidecar_facts, namespace=root_namespace
        )
        self.istiods: Informer[IstiodFacts] = inform(
            kinds.DEPLOYMENTS, parse=istiod_facts, namespace=root_namespace, labels=ISTIOD
        )
        named = f"metadata.name={POLICY}"
        self._admission: Informer[bool] = inform(kinds.ADMISSION_POLICIES, parse=_is_policy, fields=named)
        self._binding: Informer[bool] = inform(kinds.ADMISSION_POLICY_BINDINGS, parse=_is_binding, fields=named)
        self._shared: list[Informer[Any]] = [self.environments, self._admission, self._binding, self.istiods]
        if root_namespace not in self.namespaces:
            self._shared += [self.root_filters, self.root_sidecars]

    async def run(self) -> None:
        """Keep everything up to date until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self.informers:
                tasks.create_task(informer.run())

    @property
    def informers(self) -> list[Informer[Any]]:
        """All of them."""
        return [*self._shared, *(informer for watch in self.namespaces.values() for informer in watch.informers)]

    @property
    def known(self) -> frozenset[str]:
        """The namespaces of which all is known; one that can't be read does not hold up the others."""
        if not self.environments.synced:
            return frozenset()
        return frozenset(name for name, watch in self.namespaces.items() if watch.synced)

    @property
    def problems(self) -> dict[str, str]:
        """What can't be read now, and why."""
        return {str(informer): informer.problem for informer in self.informers if informer.problem}

    @property
    def admission_policy(self) -> bool:
        """Whether the API server checks owners for us."""
        return any(self._admission) and any(self._binding)

    def pod(self, key: Key) -> PodFacts | None:
        """A pod of a served namespace."""
        watch = self.namespaces.get(key.namespace)
        return watch.pods.get(key) if watch else None


def _filter(document: JsonObject) -> JsonObject | EnvoyFilterFacts:
    """Ours whole, but for what the API server notes of its writers."""
    if (document["metadata"].get("labels") or {}).get(PART_OF) != OURS[PART_OF]:
        return envoy_filter_facts(document)
    return _whole(document)


def _whole(document: JsonObject) -> JsonObject:
    document["metadata"].pop("managedFields", None)
    return document


def _egress_policy(document: JsonObject) -> EgressPolicy:
    """One that can't be read lets nothing through."""
    try:
        return egress_policy_from_json(document)
    except InvalidFieldError:
        return _DENY_ALL


def _authority(document: JsonObject) -> str:
    return str((document.get("data") or {}).get(AUTHORITY_KEY) or "")


def _is_policy(document: JsonObject) -> bool | None:
    return bool((document.get("spec") or {}).get("validations")) or None


def _is_binding(document: JsonObject) -> bool | None:
    spec = document.get("spec") or {}
    return (spec.get("policyName") == POLICY and "Deny" in (spec.get("validationActions") or ())) or None
