"""What two matches have in common.

One question answers all: can a request satisfy all of some matches? `a` is within `b` if none satisfies `a` and `not b`; they
are disjoint if none satisfies both. The search for such a request goes through the alternatives of `or`, and gives a branch
up where its conditions contradict each other. It claims a contradiction only where there is one; what it does not see
through (two different regular expressions, say) and what exceeds its bound ends as UNDECIDABLE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

from hairpin.model import regex, regex_syntax
from hairpin.model.evaluate import holds
from hairpin.model.match import (
    And,
    BaggageMember,
    Header,
    Match,
    Method,
    Not,
    Or,
    Path,
    Query,
    StringKind,
    StringPredicate,
    TracestateMember,
)

MOST_STEPS = 2000
"""How many nodes of the matches one search looks at, over all branches: some 10 ms."""

MOST_REGEX_STEPS = 100_000
"""How much one regular expression may take, on one value: also some 10 ms."""


class Relation(StrEnum):
    """How the requests of one match stand to those of another."""

    EQUAL = "equal"
    CONTAINS = "contains"
    CONTAINED = "contained"
    DISJOINT = "disjoint"
    UNDECIDABLE = "undecidable"
    """They overlap in part, or there is no telling."""


@lru_cache(maxsize=1 << 16)
def relation(a: Match, b: Match, *, unique: bool = True) -> Relation:
    """How the requests of `a` stand to those of `b`; never claims what is not so.

    Remembered: a session is held against all others of its port again and again.

    Args:
        a: one match.
        b: the other.
        unique: look only at requests that have each header, and each member of `baggage` and `tracestate`, at most once, as
            is usual. Strictly, `x-env: alice` and `x-env: bob` are not disjoint: a request may have both.
    """
    if a == b:
        return Relation.EQUAL
    if _excluded((a, b), unique=unique):
        return Relation.DISJOINT
    within, around = _excluded((a, Not(b)), unique=unique), _excluded((b, Not(a)), unique=unique)
    if within and around:
        return Relation.EQUAL
    if within:
        return Relation.CONTAINED
    return Relation.CONTAINS if around else Relation.UNDECIDABLE


@dataclass(frozen=True, slots=True)
class _Literal:
    """A condition, or its opposite."""

    subject: tuple[str, str]
    """What it is about, and the name."""
    predicate: StringPredicate | None
    positive: bool


class _TooLargeError(Exception):
    """The search would take too long."""


def _excluded(matches: Sequence[Match], *, unique: bool) -> bool:
    """Whether certainly no request satisfies all of them."""
    try:
        return _Search(unique=unique).closed([(match, True) for match in matches], ())
    except _TooLargeError:
        return False


class _Search:
    """Looks for a branch without a contradiction (an analytic tableau)."""

    def __init__(self, *, unique: bool) -> None:
        self.unique = unique
        self.steps = 0

    def closed(self, goals: list[tuple[Match, bool]], found: tuple[_Literal, ...]) -> bool:
        """Whether every branch ends in a contradiction. A goal is a match and whether it is to hold."""
        choices: list[list[tuple[Match, bool]]] = []
        while goals:
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise _TooLargeError
            match, positive = goals.pop()
            match match:
                case Not(part):
                    goals.append((part, not positive))
                case And(parts) | Or(parts):
                    below = [(part, positive) for part in parts]
                    if isinstance(match, And) is positive:
                        goals += below
                    else:
                        choices.append(below)
                case _:
                    for literal in _literals(match, positive=positive):
                        found = (*found, literal)
                        about = [other for other in found if other.subject == literal.subject]
                        if self._contradictory(literal.subject[0], about):
                            return True
        if not choices:
            return False
        choices.sort(key=len)
        first, rest = choices[0], [goal for choice in choices[1:] for goal in [_either(choice)]]
        return all(self.closed([*rest, goal], found) for goal in first)

    def _contradictory(self, kind: str, literals: Sequence[_Literal]) -> bool:
        """Whether these, all about one thing, can't hold together."""
        wanted = [literal.predicate for literal in literals if literal.positive]
        unwanted = [literal.predicate for literal in literals if not literal.positive]
        if kind in _SINGLE or (self.unique and kind in _USUALLY_SINGLE):
            # There is one value, or none; with nothing wanted, none is always possible, or any odd one.
            return bool(wanted) and _no_string(wanted, unwanted)
        # Several values: each that is wanted may be another one, but none may be unwanted.
        return any(_no_string([predicate], unwanted) for predicate in wanted)


def _either(choice: list[tuple[Match, bool]]) -> tuple[Match, bool]:
    """A choice put back together as one goal."""
    return Or(tuple(match if positive else Not(match) for match, positive in choice)), True


_SINGLE = ("path", "method")
_USUALLY_SINGLE = ("header", "baggage", "tracestate")


def _literals(match: Match, *, positive: bool) -> Iterable[_Literal]:
    """What a condition says; a member's being there also says that its header is."""
    match match:
        case Method(name):
            yield _Literal(("method", ""), StringPredicate(StringKind.EXACT, name), positive)
        case Path(value):
            yield _Literal(("path", ""), value, positive)
        case Header(name, value):
            yield _Literal(("header", name), value, positive)
        case Query(name, value):
            yield _Literal(("query", name), value, positive)
        case BaggageMember(name, value):
            yield _Literal(("baggage", name), value, positive)
            if positive:
                yield _Literal(("header", "baggage"), None, positive)
        case TracestateMember(name, value):
            yield _Literal(("tracestate", name), value, positive)
            if positive:
                yield _Literal(("header", "tracestate"), None, positive)


def _no_string(wanted: Sequence[StringPredicate | None], unwanted: Sequence[StringPredicate | None]) -> bool:
    """Whether certainly no string satisfies all that are wanted and none that is unwanted."""
    if None in unwanted:
        return True
    some = [predicate for predicate in wanted if predicate is not None]
    none = [predicate for predicate in unwanted if predicate is not None]
    exact = next((predicate.value for predicate in some if predicate.kind is StringKind.EXACT), None)
    if exact is not None:
        return any(_satisfies(exact, p) is False for p in some) or any(_satisfies(exact, p) is True for p in none)
    if any(_implies(p, q) for p in (*some, None) for q in none):
        return True
    prefixes = sorted((p.value for p in some if p.kind is StringKind.PREFIX), key=len)
    suffixes = sorted((p.value for p in some if p.kind is StringKind.SUFFIX), key=len)
    return not (
        all(longer.startswith(shorter) for shorter, longer in pairwise(prefixes))
        and all(longer.endswith(shorter) for shorter, longer in pairwise(suffixes))
    )


def _satisfies(value: str, predicate: StringPredicate) -> bool | None:
    """Whether the string satisfies it; None if that would take long to find out."""
    if (
        predicate.kind is StringKind.REGEX
        and len(value) * regex.steps(regex_syntax.parse(predicate.value)) > MOST_REGEX_STEPS
    ):
        return None
    return holds(predicate, value)


def _implies(p: StringPredicate | None, q: StringPredicate) -> bool:
    """Whether certainly every string that satisfies `p` (None: every string) satisfies `q`; `p` is not `exact`."""
    if p == q:
        return True
    if q.kind in (StringKind.PREFIX, StringKind.SUFFIX, StringKind.CONTAINS) and not q.value:
        return True
    if p is None or p.kind is StringKind.REGEX:
        return False
    match q.kind:
        case StringKind.CONTAINS:
            return q.value in p.value
        case StringKind.PREFIX:
            return p.kind is StringKind.PREFIX and p.value.startswith(q.value)
        case StringKind.SUFFIX:
            return p.kind is StringKind.SUFFIX and p.value.endswith(q.value)
        case _:
            return False
