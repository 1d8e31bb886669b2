"""What a session's owner is told: its status. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from hairpin.model.session import Condition, Phase, SessionStatus
from hairpin.model.version import OURS
from xds_server.delivery.istio.claims import agent_identity, egress_addresses, tunnel_addresses
from xds_server.delivery.istio.cluster_index import ClusterIndex
from xds_server.delivery.istio.conditions import NO_ADMISSION_POLICY, NO_AGENT, TUNNEL_MISSING, WAITING, waiting
from xds_server.delivery.istio.judge import Verdict
from xds_server.delivery.istio.objects import steered_at
from xds_server.delivery.istio.obstacles import draining, obstacles, unwritten
from xds_server.delivery.istio.standing import replicas_of
from xds_server.delivery.istio.world import PlanSettings, World
from xds_server.model.cluster import PodFacts, SessionFacts


def status(world: World, index: ClusterIndex, verdict: Verdict, *, certified: bool, now: datetime) -> SessionStatus:
    """The status to be written.

    Args:
        world: all that is known.
        index: its cluster.
        verdict: what the session gets.
        certified: whether a certificate is signed now, which whoever writes the status puts into it.
        now: the time.
    """
    session, settings, namespace = verdict.session, world.settings, verdict.session.key.namespace
    replicas = replicas_of(index, settings, namespace)
    account = verdict.claim.account
    egress = replicas_of(index, settings, namespace, account) if account else []
    environment = verdict.claim.environment
    good = certified or certificate_stands(settings, session, now)
    found = [] if verdict.refused else _found(world, verdict)
    conditions = [*verdict.conditions, *found, *([] if verdict.refused else _waiting(world, verdict, replicas))]
    return SessionStatus(
        id=session.id,
        phase=_phase(world, verdict, now, free=not any(condition.reason == WAITING for condition in found)),
        certificate=session.status.certificate,
        # It tells whose certificate this is, so it changes with the certificate only.
        certificate_authority=settings.certificate_authority if good else session.status.certificate_authority,
        agent_identity=agent_identity(settings, namespace),
        agents=tunnel_addresses(settings, replicas, _versions(world, verdict)),
        egress=egress_addresses(settings, egress),
        egress_identity=agent_identity(settings, namespace, account) if account else "",
        tunnels=verdict.standing.up,
        last_seen=verdict.standing.last_seen,
        resolved_target=_target(verdict),
        routing_key=environment.routing_key if environment else None,
        conditions=tuple(dict.fromkeys(conditions)),
        server=OURS,
    )


def _versions(world: World, verdict: Verdict) -> dict[str, str]:
    """Which hairpin each replica is: one that has not told this leader is what it was."""
    session = verdict.session
    namespace = session.key.namespace
    said = {pod.name: version for pod, version in world.versions.items() if pod.namespace == namespace}
    return {**{agent.name: agent.version for agent in session.status.agents}, **said}


def _found(world: World, verdict: Verdict) -> list[Condition]:
    points = verdict.claim.points
    return [*obstacles(world, points), *unwritten(world, points), *draining(world, points, verdict.session)]


def is_served(world: World, verdict: Verdict, now: datetime) -> bool:
    """Whether the session's requests are to be steered now."""
    session, claim = verdict.session, verdict.claim
    return (
        not verdict.refused
        and claim.validated
        and bool(claim.points)
        and session.spec is not None
        and session.spec.local_port is not None
        and certificate_stands(world.settings, session, now)
        and verdict.standing.everywhere
    )


def certificate_stands(settings: PlanSettings, session: SessionFacts, now: datetime) -> bool:
    """Whether the session has a certificate that is good now."""
    end = session.certificate_end
    return end is not None and end > now and session.status.certificate_authority == settings.certificate_authority


def _phase(world: World, verdict: Verdict, now: datetime, *, free: bool) -> Phase:
    standing = verdict.standing
    if verdict.refused:
        return Phase.REFUSED
    if not standing.up:
        return Phase.LOST if standing.lost else Phase.PENDING
    written = all(verdict.session.id in steered_at(world, point) for point in verdict.claim.points)
    return Phase.ACTIVE if written and free and is_served(world, verdict, now) else Phase.READY


def _target(verdict: Verdict) -> str:
    spec = verdict.session.spec
    if verdict.claim.points:
        return ", ".join(str(point) for point in verdict.claim.points)
    if verdict.refused or spec is None or spec.target is None:
        return ""
    return f"{spec.target.namespace}/{spec.target}"


def _waiting(world: World, verdict: Verdict, replicas: list[PodFacts]) -> Iterator[Condition]:
    """What a session that could be had waits for, beside its laptop."""
    namespace, up = verdict.session.key.namespace, verdict.standing.up
    if not world.admission_policy:
        message = "the policy that checks owners is missing in this cluster, so nothing is certified"
        yield waiting(NO_ADMISSION_POLICY, f"{message}; ask an operator for `hairpin install`")
    if not replicas:
        message = f"namespace {namespace} has no agent to connect to"
        yield waiting(NO_AGENT, f"{message}; ask an operator for `hairpin install`")
    elif not any(pod.ready for pod in replicas):
        yield waiting(NO_AGENT, f"none of the {len(replicas)} replicas of {namespace}'s agent is ready; wait for one")
    missing = [pod.key.name for pod in replicas if pod.ready and pod.key.name not in up]
    if up and missing:
        message = f"there is no tunnel to {', '.join(missing)} yet"
        yield waiting(TUNNEL_MISSING, f"{message}; requests are taken when every ready replica has one")
