"""From what the informers know to the world that a plan is made for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hairpin.model.match import Match
from xds_server.delivery.istio.world import PlanSettings, World
from xds_server.model.cluster import EnvoyFilterFacts, Key

if TYPE_CHECKING:
    from xds_server.sources.kubernetes.cluster import ClusterWatch


def world_of(
    cluster: ClusterWatch,
    settings: PlanSettings,
    leading_since: datetime,
    *,
    reports: Mapping[Key, frozenset[str]],
    versions: Mapping[Key, str],
    judged: Mapping[Match, str],
    unwritten: Mapping[Key, str],
) -> World:
    """All that is known now. Namespaces that can't be read are not served; the others are."""
    known = cluster.known
    watches = [watch for name, watch in cluster.namespaces.items() if name in known]
    filters = [found for watch in watches for found in watch.filters]
    return World(
        settings=settings,
        leading_since=leading_since,
        namespaces=known,
        sessions=[session for watch in watches for session in watch.sessions],
        environments=list(cluster.environments),
        services=[service for watch in watches for service in watch.services],
        workloads=[workload for watch in watches for kind in watch.workloads.values() for workload in kind],
        pods=[pod for watch in watches for pod in watch.pods],
        filters={_key(o): o for watch in watches for o in watch.delivered if isinstance(o, dict)},
        foreign_filters=[*_foreign(filters), *_foreign(cluster.root_filters)],
        sidecars=[*(sidecar for watch in watches for sidecar in watch.sidecars), *cluster.root_sidecars],
        istiods=list(cluster.istiods),
        unwritten=unwritten,
        reports=reports,
        versions=versions,
        judged=judged,
        admission_policy=cluster.admission_policy,
    )


def _foreign(found: Iterable[Any]) -> list[EnvoyFilterFacts]:
    return [item for item in found if isinstance(item, EnvoyFilterFacts)]


def _key(document: dict[str, Any]) -> Key:
    metadata = document["metadata"]
    return Key(metadata["namespace"], metadata["name"])
