"""A cluster's facts, found by name, by label and by owner. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from xds_server.delivery.istio.world import World
from xds_server.model.cluster import Key, PodFacts, ServiceFacts, ServicePortFacts, WorkloadFacts

MAKES_REPLICASETS = ("deployment", "rollout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A Service's port that leads to a workload."""

    service: ServiceFacts
    port: ServicePortFacts
    number: int | None
    """The container's port; None where the workload declares none of the wanted name."""


def covers(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether something with these labels is selected."""
    return all(labels.get(name) == value for name, value in selector.items())


def pod_labels(workload: WorkloadFacts) -> Mapping[str, str]:
    """The labels by which an EnvoyFilter finds a workload's pods; empty where there are none.

    Where the workload's own selector is more than labels, those of its template, which all of its new pods have.
    """
    return workload.labels if workload.selector is None else workload.selector


def reference(workload: WorkloadFacts) -> str:
    """As `KIND/NAME`."""
    return f"{workload.kind}/{workload.key.name}"


def container_port(workload: WorkloadFacts, target: int | str) -> int | None:
    """The number of a Service's `targetPort`; None if the workload declares no port of that name."""
    if isinstance(target, int):
        return target
    return next((port.number for port in workload.ports if port.name == target), None)


class ClusterIndex:
    """The services, workloads and pods of a world. Everything comes out sorted."""

    def __init__(self, world: World) -> None:
        self._services = {service.key: service for service in world.services}
        self._workloads = {(w.kind, w.key): w for w in (*world.workloads, *_bare(world.pods))}
        self._pods = world.pods

    def service(self, key: Key) -> ServiceFacts | None:
        """The Service of this name."""
        return self._services.get(key)

    def workload(self, kind: str, key: Key) -> WorkloadFacts | None:
        """The workload of this kind and name."""
        return self._workloads.get((kind, key))

    def services(self, namespace: str) -> list[ServiceFacts]:
        """Those of a namespace."""
        return self._services_in.get(namespace, [])

    def workloads(self, namespace: str) -> list[WorkloadFacts]:
        """Those of a namespace."""
        return self._workloads_in.get(namespace, [])

    def behind(self, service: ServiceFacts) -> list[WorkloadFacts]:
        """The workloads whose pods a Service selects."""
        if not service.selector:
            return []
        return [w for w in self.workloads(service.key.namespace) if covers(service.selector, w.labels)]

    def selections(self, workload: WorkloadFacts) -> list[Selection]:
        """The Services' ports that lead to a workload: where there is none, its sidecar has no inbound listener."""
        return [
            Selection(service=service, port=port, number=container_port(workload, port.target))
            for service in self.services(workload.key.namespace)
            if service.selector and covers(service.selector, workload.labels)
            for port in service.ports
        ]

    def pods(self, workload: WorkloadFacts) -> list[PodFacts]:
        """A workload's pods that are to stay."""
        return self._pods_of.get((workload.kind, workload.key), [])

    def owned_by(self, namespace: str, owner: str) -> list[PodFacts]:
        """The pods of this controller, `KIND/NAME`, that are to stay."""
        return self._pods_by_owner.get((namespace, owner), [])

    @cached_property
    def _services_in(self) -> dict[str, list[ServiceFacts]]:
        found = defaultdict(list)
        for key in sorted(self._services):
            found[key.namespace].append(self._services[key])
        return found

    @cached_property
    def _workloads_in(self) -> dict[str, list[WorkloadFacts]]:
        found = defaultdict(list)
        for kind, key in sorted(self._workloads):
            found[key.namespace].append(self._workloads[kind, key])
        return found

    @cached_property
    def _pods_by_owner(self) -> dict[tuple[str, str], list[PodFacts]]:
        found = defaultdict(list)
        for pod in sorted(self._pods, key=lambda pod: pod.key):
            if not pod.terminating:
                found[pod.key.namespace, pod.owner].append(pod)
        return found

    @cached_property
    def _pods_of(self) -> dict[tuple[str, Key], list[PodFacts]]:
        found: dict[tuple[str, Key], list[PodFacts]] = defaultdict(list)
        for (namespace, owner), pods in self._pods_by_owner.items():
            kind, _, name = owner.partition("/")
            if not owner:
                for pod in pods:
                    found["pod", pod.key].append(pod)
            elif kind == "replicaset":
                # A ReplicaSet is called after its Deployment or Rollout, with a hash.
                for maker in MAKES_REPLICASETS:
                    found[maker, Key(namespace, name.rpartition("-")[0])] += pods
            else:
                found[kind, Key(namespace, name)] += pods
        for pods in found.values():
            pods.sort(key=lambda pod: pod.key)
        return found


def _bare(pods: Iterable[PodFacts]) -> Iterable[WorkloadFacts]:
    """Pods without a controller, each a workload of its own."""
    for pod in pods:
        if not pod.owner and not pod.terminating:
            yield WorkloadFacts(
                kind="pod",
                key=pod.key,
                selector=pod.labels,
                labels=pod.labels,
                service_account=pod.service_account,
                ports=pod.ports,
            )
