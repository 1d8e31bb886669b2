"""Who may take which requests: the one place that decides it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from hairpin.errors import ConflictError
from hairpin.model.match import Match
from hairpin.model.match_text import format_match
from hairpin.model.overlap import Relation, relation
from hairpin.model.session import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A stealing session's hold on requests."""

    session: str
    owner: str
    since: datetime | None
    """None for one that is only asked for."""
    namespace: str
    workload: str
    port: int
    match: Match


def check_conflict(held: Iterable[Holding], new: Holding) -> list[Condition]:
    """Whether `new` may be held beside the others.

    Matches of which one contains the other can't be told apart by a sidecar: refused. Where that can't be decided the
    earlier session has the requests that both match, and the later owner is told.

    Raises:
        ConflictError: another session holds these requests; the message names its owner.
    """
    remarks = []
    for holding in held:
        if (holding.namespace, holding.workload, holding.port) != (new.namespace, new.workload, new.port):
            continue
        match relation(new.match, holding.match):
            case Relation.EQUAL | Relation.CONTAINED:
                raise ConflictError(_refusal(holding, new, "takes these requests"))
            case Relation.CONTAINS:
                raise ConflictError(_refusal(holding, new, "takes some of these requests"))
            case Relation.UNDECIDABLE:
                remarks.append(Condition(type="Overlap", message=_remark(holding)))
            case Relation.DISJOINT:
                pass
    return remarks


def _refusal(holding: Holding, new: Holding, what: str) -> str:
    since = f" since {holding.since:%H:%M:%S} UTC" if holding.since else ""
    whose = "you yourself hold them" if holding.owner == new.owner else f"ask {holding.owner}"
    return (
        f"{holding.owner} {what} of {holding.workload}:{holding.port} with session {holding.session}{since} "
        f"({format_match(holding.match)}); {whose}, or take others with --match"
    )


def _remark(holding: Holding) -> str:
    return (
        f"session {holding.session} of {holding.owner} ({format_match(holding.match)}) may match some of the same requests; "
        "it was there first and gets those"
    )
