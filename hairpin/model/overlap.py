"""What two matches have in common: sound, and complete enough for what people write.

Both are brought into disjunctive normal form, bounded in size; then conjunctions are compared literal by literal. Members of
`baggage` and `tracestate` are taken as unique by key, as the W3C has them; a query's parameter may come several times.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from hairpin.model.evaluate import holds
from hairpin.model.match import And, Match, Method, Not, Or, Query, StringKind, StringPredicate

MOST_CONJUNCTIONS = 64

Atom: TypeAlias = Match
Literal: TypeAlias = tuple[Atom, bool]
Conjunction: TypeAlias = frozenset[Literal]


class Relation(StrEnum):
    """Of a first match to a second."""

    EQUAL = "equal"
    CONTAINS = "contains"
    CONTAINED = "contained"
    DISJOINT = "disjoint"
    UNDECIDABLE = "undecidable"


class _TooLargeError(Exception):
    pass


def relation(a: Match, b: Match) -> Relation:
    """How the requests of `a` stand to those of `b`. Never claims what is not so; UNDECIDABLE claims nothing."""
    try:
        first, second = _possible(_dnf(a, positive=True)), _possible(_dnf(b, positive=True))
    except _TooLargeError:
        return Relation.EQUAL if a == b else Relation.UNDECIDABLE
    if all(_contradictory(c | d) for c in first for d in second):
        return Relation.DISJOINT
    contains = all(any(_implies(d, c) for c in first) for d in second)
    contained = all(any(_implies(c, d) for d in second) for c in first)
    if contains and contained:
        return Relation.EQUAL
    if contains:
        return Relation.CONTAINS
    return Relation.CONTAINED if contained else Relation.UNDECIDABLE


def _dnf(match: Match, *, positive: bool) -> list[Conjunction]:
    match match:
        case Not(part):
            return _dnf(part, positive=not positive)
        case And(parts) | Or(parts):
            lists = [_dnf(part, positive=positive) for part in parts]
            if isinstance(match, Or) is positive:  # a disjunction, or by De Morgan one
                return _bounded([conjunction for one in lists for conjunction in one])
            product: list[Conjunction] = [frozenset()]
            for one in lists:
                product = _bounded([c | d for c in product for d in one])
            return product
        case _:
            return [frozenset({(match, positive)})]


def _bounded(conjunctions: list[Conjunction]) -> list[Conjunction]:
    if len(conjunctions) > MOST_CONJUNCTIONS:
        raise _TooLargeError
    return list(dict.fromkeys(conjunctions))


def _possible(conjunctions: list[Conjunction]) -> list[Conjunction]:
    return [conjunction for conjunction in conjunctions if not _contradictory(conjunction)]


def _contradictory(conjunction: Conjunction) -> bool:
    literals = list(conjunction)
    return any(_exclude(a, b) for index, a in enumerate(literals) for b in literals[index + 1 :])


def _implies(c: Conjunction, d: Conjunction) -> bool:
    return all(any(_literal_implies(a, b) for a in c) for b in d)


def _literal_implies(a: Literal, b: Literal) -> bool:
    (x, x_positive), (y, y_positive) = a, b
    if x_positive and y_positive:
        return _atom_implies(x, y)
    if x_positive:
        return _atoms_exclude(x, y)
    return not y_positive and _atom_implies(y, x)


def _exclude(a: Literal, b: Literal) -> bool:
    (x, x_positive), (y, y_positive) = a, b
    if x_positive and y_positive:
        return _atoms_exclude(x, y)
    if x_positive:
        return _atom_implies(x, y)
    return y_positive and _atom_implies(y, x)


def _subject(atom: Atom) -> tuple[str, str]:
    return type(atom).__name__, getattr(atom, "key", "") or ("" if isinstance(atom, Method) else getattr(atom, "name", ""))


def _predicate(atom: Atom) -> StringPredicate | None:
    if isinstance(atom, Method):
        return StringPredicate(StringKind.EXACT, atom.name)
    value: StringPredicate | None = getattr(atom, "value", None)
    return value


def _atom_implies(x: Atom, y: Atom) -> bool:
    return _subject(x) == _subject(y) and _predicate_implies(_predicate(x), _predicate(y))


def _atoms_exclude(x: Atom, y: Atom) -> bool:
    if _subject(x) != _subject(y) or isinstance(x, Query):
        return False
    p, q = _predicate(x), _predicate(y)
    return p is not None and q is not None and _predicates_exclude(p, q)


def _predicate_implies(p: StringPredicate | None, q: StringPredicate | None) -> bool:
    if q is None or p == q:
        return True
    if p is None or StringKind.REGEX in (p.kind, q.kind):
        return False
    match p.kind, q.kind:
        case StringKind.EXACT, _:
            return holds(q, p.value)
        case StringKind.PREFIX, StringKind.PREFIX:
            return p.value.startswith(q.value)
        case StringKind.SUFFIX, StringKind.SUFFIX:
            return p.value.endswith(q.value)
        case _, StringKind.CONTAINS:
            return q.value in p.value
        case _:
            return False


def _predicates_exclude(p: StringPredicate, q: StringPredicate) -> bool:
    if StringKind.REGEX in (p.kind, q.kind):
        return False
    if p.kind is StringKind.EXACT:
        return not holds(q, p.value)
    if q.kind is StringKind.EXACT:
        return not holds(p, q.value)
    match p.kind, q.kind:
        case StringKind.PREFIX, StringKind.PREFIX:
            return not (p.value.startswith(q.value) or q.value.startswith(p.value))
        case StringKind.SUFFIX, StringKind.SUFFIX:
            return not (p.value.endswith(q.value) or q.value.endswith(p.value))
        case _:
            return False


