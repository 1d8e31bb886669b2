"""The controller's brain: from all that is known to all that should be. Pure.

Level-triggered: a plan never asks what happened, only what is. So it is the same whoever was killed where, and whatever was
deleted by hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from hairpin.model.match import Match
from xds_server.delivery.istio.claims import needs_validation
from xds_server.delivery.istio.cluster_index import ClusterIndex
from xds_server.delivery.istio.envoyfilter import ROLE
from xds_server.delivery.istio.judge import Judgement, Verdict, judge
from xds_server.delivery.istio.objects import Existing, Renderer, existing, is_as_wanted, wanted
from xds_server.delivery.istio.points import Place, Point
from xds_server.delivery.istio.standing import replicas_of, report_deadlines, standing
from xds_server.delivery.istio.statuses import certificate_stands, is_served, status
from xds_server.delivery.istio.world import JsonObject, Plan, World
from xds_server.generate.steer import Claim
from xds_server.model.cluster import Key


def plan(world: World, now: datetime, renderer: Renderer | None = None) -> Plan:
    """All that should be.

    Args:
        world: all that is known, by informers that have listed everything once.
        now: the time.
        renderer: keep one, to be quick: what is the same is not encoded again.
    """
    index = ClusterIndex(world)
    sessions = [s for s in world.sessions if s.key.namespace in world.namespaces and not s.deleting]
    replicas = {namespace: replicas_of(index, world.settings, namespace) for namespace in world.namespaces}
    standings = {s.key: standing(world, replicas[s.key.namespace], s, now) for s in sessions}
    there = existing(world, index)
    judgement = judge(world, index, standings, there.plumbed, now)
    certify = frozenset(v.session.key for v in judgement.verdicts if _is_to_be_certified(world, v, now))
    points, claims = _steering(world, judgement, now)
    objects = wanted([*there.plumbed, *points], claims, world.settings, renderer or Renderer())
    apply = {key: o for key, o in objects.items() if not is_as_wanted(world.filters.get(key), o)}
    return Plan(
        statuses={
            v.session.key: status(world, index, v, certified=v.session.key in certify, now=now)
            for v in judgement.verdicts
        },
        certify=certify,
        validate=_to_be_validated(world, judgement),
        end=dict(judgement.end),
        apply=apply,
        delete=tuple(key for key in (*there.useless, *sorted(there.orphans)) if key not in objects),
        next=_next(world, index, judgement, now),
        remarks=tuple(_remarks(world, judgement, there, apply)),
    )


def _is_to_be_certified(world: World, verdict: Verdict, now: datetime) -> bool:
    """Whether a certificate is missing, of another key, at its end or of another CA."""
    session = verdict.session
    if verdict.refused or not verdict.claim.validated or not session.request_key or not world.admission_policy:
        return False
    return session.certificate_key != session.request_key or not certificate_stands(world.settings, session, now)


def _steering(world: World, judgement: Judgement, now: datetime) -> tuple[list[Point], dict[Place, Sequence[Claim]]]:
    """The points that sessions need, and what is to be steered there now."""
    points: list[Point] = []
    claims: defaultdict[Place, list[Claim]] = defaultdict(list)
    for verdict in judgement.verdicts:
        session, claim = verdict.session, verdict.claim
        if not claim.validated or not (world.admission_policy or session.certificate_key):
            continue
        points += claim.points
        if claim.match is not None and is_served(world, verdict, now):
            for point in claim.points:
                claims[point.place].append(
                    Claim(session=session.id, created=session.created, match=claim.match, mirror=claim.mirror)
                )
    return points, {
        place: sorted(found, key=lambda claim: (claim.created, claim.session)) for place, found in claims.items()
    }


def _to_be_validated(world: World, judgement: Judgement) -> frozenset[Match]:
    return frozenset(
        spec.match
        for verdict in judgement.verdicts
        if not verdict.refused
        and (spec := verdict.session.spec) is not None
        and spec.match is not None
        and needs_validation(spec.match)
        and spec.match not in world.judged
    )


def _next(world: World, index: ClusterIndex, judgement: Judgement, now: datetime) -> datetime | None:
    times: list[datetime | None] = []
    for verdict in judgement.verdicts:
        times += [verdict.standing.deadline, verdict.session.certificate_end]
    if judgement.verdicts:
        times += report_deadlines(world, index)
    return min((time for time in times if time is not None and time > now), default=None)


def _remarks(world: World, judgement: Judgement, there: Existing, apply: Mapping[Key, JsonObject]) -> Iterator[str]:
    if judgement.verdicts and not world.admission_policy:
        yield "the admission policy that checks sessions' owners is missing: nothing is certified; `hairpin install` mends it"
    for key in there.useless:
        yield f"{key} is labelled as hairpin's and is for nothing that there is, or by another delivery"
    for key, document in apply.items():
        if key in world.filters and document["metadata"]["labels"].get(ROLE) == "plumbing":
            what = "is not as this version writes it, and is written anew"
            yield f"plumbing {key} {what}: the listener changes once, and its open connections drain"
    for key in sorted(judgement.end):
        yield f"session {key} ends: {judgement.end[key]}"
