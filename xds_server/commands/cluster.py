"""The cluster as an operator's command sees it once: a world without informers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError
from hairpin.kubernetes import kinds
from hairpin.kubernetes.errors import ApiNotFoundError
from hairpin.kubernetes.installation import CONTROLLER, OURS, PART_OF, SYSTEM
from xds_server.delivery.istio.cluster_index import ClusterIndex
from xds_server.delivery.istio.conditions import RefusedError
from xds_server.delivery.istio.points import Point
from xds_server.delivery.istio.resolve import resolve
from xds_server.delivery.istio.world import JsonObject, PlanSettings, World
from xds_server.server.kubernetes.settings import Settings, settings_of
from xds_server.sources.kubernetes.facts import key_of, pod_facts, service_facts, session_facts, workload_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from hairpin.kubernetes.api import Api
    from hairpin.kubernetes.kinds import Kind
    from hairpin.model.target import Target
    from xds_server.model.cluster import SessionFacts

_WORKLOADS = {
    "deployment": kinds.DEPLOYMENTS,
    "statefulset": kinds.STATEFUL_SETS,
    "daemonset": kinds.DAEMON_SETS,
    "rollout": kinds.ROLLOUTS,
}


@dataclass(frozen=True, slots=True)
class Look:
    """A namespace at one moment."""

    world: World
    index: ClusterIndex

    def points(self, target: Target) -> list[Point]:
        """What a target stands for.

        Raises:
            HairpinError: nothing that can be steered.
        """
        try:
            found = resolve(self.index, target)
        except RefusedError as error:
            raise HairpinError(str(error)) from None
        if not found.points:
            reasons = "; ".join(condition.message for condition in found.conditions)
            raise NotFoundError(reasons or f"{target} has no workload")
        return list(found.points)

    def sessions_on(self, points: list[Point]) -> list[SessionFacts]:
        """The sessions whose target has one of these points."""
        places = {point.place for point in points}
        found = []
        for session in self.world.sessions:
            if session.spec is None or session.spec.target is None or session.deleting:
                continue
            try:
                theirs = resolve(self.index, session.spec.target).points
            except RefusedError:
                continue
            if places & {point.place for point in theirs}:
                found.append(session)
        return found


async def look(api: Api, namespace: str) -> Look:
    """Read a namespace.

    Raises:
        NotFoundError: hairpin is not installed, or does not serve the namespace.
        ApiError: something may not be read.
    """
    settings = await _settings(api)
    if namespace not in settings.namespaces:
        served = ", ".join(sorted(settings.namespaces)) or "none"
        raise NotFoundError(
            f"-n: hairpin does not serve namespace {namespace!r}, but {served}; `hairpin install` adds it"
        )
    async with asyncio.TaskGroup() as tasks:
        read = partial(_read, api, namespace)
        services = tasks.create_task(read(kinds.SERVICES, service_facts))
        pods = tasks.create_task(read(kinds.PODS, pod_facts))
        sessions = tasks.create_task(read(kinds.SESSIONS, session_facts))
        filters = tasks.create_task(read(kinds.ENVOY_FILTERS, _whole, labels=f"{PART_OF}={OURS[PART_OF]}"))
        workloads = [
            tasks.create_task(read(resource, partial(workload_facts, kind))) for kind, resource in _WORKLOADS.items()
        ]
    world = World(
        settings=PlanSettings(
            certificate_authority="",
            trust_domain=settings.trust_domain,
            cluster_domain=settings.cluster_domain,
            root_namespace=settings.root_namespace,
            delivery=settings.delivery,
            routing_key=settings.routing_key,
        ),
        leading_since=datetime.now(UTC),
        namespaces=frozenset({namespace}),
        sessions=sessions.result(),
        services=services.result(),
        workloads=[workload for task in workloads for workload in task.result()],
        pods=pods.result(),
        filters={key_of(document): document for document in filters.result()},
    )
    return Look(world, ClusterIndex(world))


async def _settings(api: Api) -> Settings:
    found = await api.find(kinds.CONFIG_MAPS, CONTROLLER, namespace=SYSTEM)
    if found is None:
        raise NotFoundError("hairpin is not installed in this cluster; `hairpin install` does that")
    import yaml  # noqa: PLC0415 # takes a while

    try:
        (text,) = found["data"].values()
        return settings_of(yaml.safe_load(text))
    except (KeyError, ValueError, yaml.YAMLError, InvalidFieldError) as error:
        raise HairpinError(f"the ConfigMap {SYSTEM}/{CONTROLLER} can't be read: {error}") from error


async def _read(
    api: Api, namespace: str, kind: Kind, parse: Callable[[JsonObject], Any], *, labels: str = ""
) -> list[Any]:
    try:
        found = await api.list(kind, namespace=namespace, labels=labels)
    except ApiNotFoundError:
        return []  # no such kind here: Argo's rollouts, most likely
    return [parse(item) for item in found["items"]]


def _whole(document: JsonObject) -> JsonObject:
    return document
