"""Where a session's tunnels stand, and when it ends. Pure.

Deadlines come from the Session object and from `leading_since` alone, so that they outlive a controller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hairpin.kubernetes.installation import identity_agent
from xds_server.delivery.istio.cluster_index import ClusterIndex
from xds_server.delivery.istio.world import PlanSettings, World
from xds_server.model.cluster import PodFacts, SessionFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How it is with a session's tunnels."""

    up: tuple[str, ...] = ()
    """The replicas to which one is up."""
    hearsay: bool = False
    """Whether all of them are what the last leader wrote down: none of their replicas has reported to this one yet."""
    everywhere: bool = False
    """Whether there is one to every replica that is ready: a sidecar spreads requests over all of them."""
    last_seen: datetime | None = None
    """When the last one went down; None if none ever was up."""
    deadline: datetime | None = None
    """When the session ends if nothing changes."""
    reason: str = ""
    """Why it will."""

    @property
    def lost(self) -> bool:
        """Whether a tunnel was up, and none is."""
        return self.last_seen is not None and not self.up


def standing(world: World, replicas: Sequence[PodFacts], session: SessionFacts, now: datetime) -> Standing:
    """How it is with a session, given the replicas of its namespace's steering agent."""
    settings, status = world.settings, session.status
    up = tuple(sorted(pod.key.name for pod in replicas if _has_tunnel(world, pod, session, now)))
    hearsay = bool(up) and all(pod.key not in world.reports for pod in replicas if pod.key.name in up)
    ready = {pod.key.name for pod in replicas if pod.ready}
    everywhere = bool(ready) and ready <= set(up)
    last_seen = now if status.tunnels and not up else status.last_seen
    begun = max(session.created, world.leading_since)
    deadline, reason = None, ""
    if session.spec is None:
        deadline, reason = begun + settings.malformed_grace, f"it can't be read: {session.problem}"
    elif not up and last_seen is None:
        deadline = begun + max(settings.start_grace, lease(settings, session))
        reason = "its laptop never connected"
    elif not up and last_seen is not None and ready:
        # While the agent is away, nobody could come back.
        returned = min((pod.ready_since for pod in replicas if pod.ready and pod.ready_since), default=last_seen)
        deadline = max(last_seen, returned) + lease(settings, session)
        deadline = max(deadline, world.leading_since + settings.report_grace)
        reason = "its tunnel did not come back"
    return Standing(
        up=up, hearsay=hearsay, everywhere=everywhere, last_seen=last_seen, deadline=deadline, reason=reason
    )


def lease(settings: PlanSettings, session: SessionFacts) -> timedelta:
    """How long the session outlives its tunnel, within the operators' bounds."""
    wanted = timedelta(seconds=session.spec.lease_seconds if session.spec else 0)
    return min(max(wanted, settings.shortest_lease), settings.longest_lease)


def replicas_of(index: ClusterIndex, settings: PlanSettings, namespace: str, account: str = "") -> list[PodFacts]:
    """The replicas of a namespace's steering agent, or of the one that runs under a service account."""
    if not account:
        return index.owned_by(namespace, f"statefulset/{settings.agent}")
    # A pod that does not run as the account would not have its identity, whatever its name.
    found = index.owned_by(namespace, f"statefulset/{identity_agent(account)}")
    return [pod for pod in found if pod.service_account == account]


def report_deadlines(world: World, index: ClusterIndex) -> Iterator[datetime]:
    """When a replica that has not reported ceases to be believed."""
    for namespace in world.namespaces:
        if any(pod.key not in world.reports for pod in replicas_of(index, world.settings, namespace)):
            yield world.leading_since + world.settings.report_grace


def _has_tunnel(world: World, pod: PodFacts, session: SessionFacts, now: datetime) -> bool:
    reported = world.reports.get(pod.key)
    if reported is not None:
        return session.id in reported
    return now < world.leading_since + world.settings.report_grace and pod.key.name in session.status.tunnels
