"""Who gets what: the claims of all sessions against each other, in order. Pure.

Who holds already goes first, then by age: a session that was refused gets its chance when the holder is gone, and never takes
anything from one who came meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from hairpin.errors import ConflictError
from hairpin.model.conflict import Holding, check_conflict, conflicts
from hairpin.model.delivery import Delivery
from hairpin.model.session import Condition, Phase
from xds_server.delivery.istio.by_route import check_room
from xds_server.delivery.istio.claims import Claim, claim
from xds_server.delivery.istio.cluster_index import ClusterIndex, reference
from xds_server.delivery.istio.conditions import HELD, OVERLAPPING_WORKLOADS, REMARK, RefusedError, refusal
from xds_server.delivery.istio.points import Place, Point
from xds_server.delivery.istio.standing import Standing
from xds_server.delivery.istio.world import World
from xds_server.model.cluster import Key, SessionFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a living session gets."""

    session: SessionFacts
    standing: Standing
    claim: Claim
    """Empty if it is refused."""
    conditions: tuple[Condition, ...]
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What all sessions get."""

    verdicts: tuple[Verdict, ...]
    """Of the living."""
    end: Mapping[Key, str]
    """The others, with the reason."""


def judge(
    world: World, index: ClusterIndex, standings: Mapping[Key, Standing], plumbed: Iterable[Point], now: datetime
) -> Judgement:
    """Decide on every session.

    Args:
        world: all that is known.
        index: its cluster.
        standings: of every session.
        plumbed: the points that have plumbing.
        now: the time.
    """
    court = _Court(standings, world.settings.delivery)
    for point in plumbed:
        court.occupied.setdefault(point.place, point)
    verdicts = []
    for session in sorted((s for s in world.sessions if s.key in standings), key=_order):
        standing = standings[session.key]
        if standing.deadline is not None and standing.deadline <= now:
            court.end[session.key] = standing.reason
            continue
        try:
            wanted = claim(world, index, session)
            conditions = (*wanted.conditions, *court.grant(session, wanted))
        except _UndecidedError:
            continue  # its status stays as it is until the agents have reported, or are not waited for any longer
        except RefusedError as error:
            verdict = Verdict(
                session=session, standing=standing, claim=Claim(), conditions=(error.condition,), refused=True
            )
        else:
            verdict = Verdict(session=session, standing=standing, claim=wanted, conditions=conditions, refused=False)
        verdicts.append(verdict)
    return Judgement(verdicts=tuple(v for v in verdicts if v.session.key not in court.end), end=court.end)


def is_incumbent(session: SessionFacts) -> bool:
    """Whether it was granted what it asks for before."""
    return bool(session.status.id) and session.status.phase is not Phase.REFUSED


def _order(session: SessionFacts) -> tuple[bool, datetime, Key]:
    return not is_incumbent(session), session.created, session.key


class _UndecidedError(Exception):
    """It is not known yet whether the holder is lost."""


@dataclass(slots=True)
class _Court:
    """What has been granted so far."""

    standings: Mapping[Key, Standing]
    delivery: Delivery
    held: dict[Place, dict[Key, Holding]] = field(default_factory=lambda: defaultdict(dict))
    occupied: dict[Place, Point] = field(default_factory=dict)
    """The places that have plumbing or will."""
    end: dict[Key, str] = field(default_factory=dict)

    def grant(self, session: SessionFacts, wanted: Claim) -> list[Condition]:
        """Let the session hold its claim; remarks for its owner.

        Raises:
            RefusedError: somebody else holds it.
            _UndecidedError: an earlier session of its owner's does, if it is alive.
        """
        for point in wanted.points:
            self._check_selectors(point)
        holdings = wanted.holdings(session)
        lost = self._lost_before(session, wanted, holdings)
        conditions: list[Condition] = []
        for point, holding in zip(wanted.points, holdings, strict=True):
            others = [held for key, held in self.held[point.place].items() if key not in lost]
            try:
                conditions += [replace(c, reason=REMARK) for c in check_conflict(others, holding)]
            except ConflictError as error:
                if not session.status.id and self._may_be_lost(point.place, holding):
                    raise _UndecidedError from None
                raise refusal(HELD, str(error)) from None
        for point in wanted.points:
            check_room(point, len(self.held[point.place].keys() - lost), self.delivery)
        for key in lost:
            self.end[key] = f"its owner's next session {session.key.name} takes its place"
            for holders in self.held.values():
                holders.pop(key, None)
        for point, holding in zip(wanted.points, holdings, strict=True):
            self.held[point.place][session.key] = holding
            self.occupied[point.place] = point
        return conditions

    def _lost_before(self, session: SessionFacts, wanted: Claim, holdings: list[Holding]) -> set[Key]:
        """The owner's sessions that are lost and whose requests a new one asks for (docs/decisions/0008)."""
        if session.status.phase is Phase.REFUSED:
            return set()
        return {
            key
            for point, new in zip(wanted.points, holdings, strict=True)
            for key, held in self.held[point.place].items()
            if held.owner == new.owner and self.standings[key].lost and conflicts(held, new)
        }

    def _may_be_lost(self, place: Place, new: Holding) -> bool:
        """Whether a leader that has just begun can't tell: then nothing is refused that it would grant in a moment."""
        holders = [key for key, held in self.held[place].items() if conflicts(held, new)]
        return all(
            self.held[place][key].owner == new.owner and (self.standings[key].lost or self.standings[key].hearsay)
            for key in holders
        )

    def _check_selectors(self, point: Point) -> None:
        """Two EnvoyFilters of one kind must not meet in a sidecar."""
        for place, other in sorted(self.occupied.items(), key=lambda item: item[0]):
            if place != point.place and (other.reaches(point) or point.reaches(other)):
                theirs = reference(other.workload)
                message = f"{reference(point.workload)} and {theirs} select each other's pods, and {other} has plumbing already"
                raise refusal(
                    OVERLAPPING_WORKLOADS,
                    f"{message}; name {theirs} as the target, or `hairpin disable {theirs}` first",
                )
