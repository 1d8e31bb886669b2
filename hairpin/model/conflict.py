"""Who may take which requests: the one place that decides it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from hairpin.errors import ConflictError
from hairpin.model.match import Match
from hairpin.model.match_format import format_match
from hairpin.model.overlap import Relation, relation
from hairpin.model.session import Condition

OVERLAP = "Overlap"
"""The type of the condition that tells of requests which an earlier session may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A hold on requests, of a session in mode `steal` or `mirror`: the others never conflict."""

    session: str
    owner: str
    since: datetime | None
    """None for one that is only asked for."""
    namespace: str
    workload: str
    port: int
    """The port's number: names are resolved before."""
    match: Match
    """All that a request must satisfy, the environment included."""
    mirror: bool = False
    """Whether it is a hold on their copies: a request has one answer and, beside that, one copy."""


def check_conflict(held: Iterable[Holding], new: Holding) -> list[Condition]:
    """Whether `new` may be held beside the others.

    Who takes requests and who gets them in copy never conflict. In one mode, at one port of one workload, the same requests
    can't be held twice, nor can all requests of one session be part of
    another's: refused. Where matches overlap in part, or that can't be told, the session that was there first gets what both
    match, and the owner of the later one is told. A request that has a header or a member twice, with two different values, is
    no reason for either; the first session gets it.

    Args:
        held: the other sessions' holdings; one of `new`'s own name is passed over.
        new: what is asked for.

    Returns:
        Remarks for the owner of `new`.

    Raises:
        ConflictError: another session holds these requests; the message names it, its owner and since when.
    """
    remarks = []
    for holding in sorted(held, key=_age):
        if holding.session == new.session or _place(holding) != _place(new):
            continue
        match relation(new.match, holding.match):
            case Relation.EQUAL:
                raise ConflictError(_refusal(holding, new, "are held already"))
            case Relation.CONTAINED:
                raise ConflictError(_refusal(holding, new, "are among those held already"))
            case Relation.CONTAINS:
                raise ConflictError(_refusal(holding, new, "include some that are held already"))
            case Relation.UNDECIDABLE:
                remarks.append(Condition(type=OVERLAP, message=_remark(holding)))
            case Relation.DISJOINT:
                pass
    return remarks


def conflicts(held: Holding, new: Holding) -> bool:
    """Whether `new` would be refused because of this one."""
    try:
        check_conflict([held], new)
    except ConflictError:
        return True
    return False


def _age(holding: Holding) -> tuple[float, str]:
    return holding.since.timestamp() if holding.since else math.inf, holding.session


def _place(holding: Holding) -> tuple[str, str, int, bool]:
    return holding.namespace, holding.workload, holding.port, holding.mirror


def _refusal(holding: Holding, new: Holding, how: str) -> str:
    since = f" since {holding.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if holding.since else ""
    if holding.owner == new.owner:
        whose, remedy = "you yourself", f"`hairpin stop {holding.session}` gives them back"
    else:
        whose, remedy = holding.owner, f"ask {holding.owner} to stop it"
    what = "the copies of requests" if new.mirror else "the requests"
    return (
        f"{what} of {holding.namespace}/{holding.workload}:{holding.port} with {format_match(new.match)} {how}, "
        f"by {whose} in session {holding.session} ({format_match(holding.match)}){since}; "
        f"{remedy}, or take others by --env or --match"
    )


def _remark(holding: Holding) -> str:
    return (
        f"session {holding.session} of {holding.owner} ({format_match(holding.match)}) may match some of the same requests; "
        "it was there first and gets those"
    )
