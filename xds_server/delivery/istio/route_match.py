"""What a route can say of a match, for the deliveries that steer by routes: callers' sidecars and waypoints. Pure.

A route takes requests that meet all of its conditions, at most one on each header, parameter, path and method. So `or` at a
match's top becomes several routes, and what is left of `or` and `not`, which no route can say, is refused by name: where that
is wanted, the target's sidecar is the place (`envoyfilter`).

Two things differ from the target's sidecar: of several headers of one name these see all, joined by commas, and of several
parameters of one name the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hairpin.errors import InvalidFieldError
from hairpin.model import regex, regex_syntax
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
from hairpin.model.match_format import format_match
from xds_server.generate.match import permission
from xds_server.generate.steer import Claim

Subject = Literal["header", "path", "method", "query"]
Operator = Literal["present", "exact", "regex"]

REMEDY = "write it without, or have it steered at the target's sidecar (delivery: inbound)"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a route."""

    subject: Subject
    name: str
    """Of the header, in lower case, or the parameter; else empty."""
    operator: Operator
    value: str = ""
    """A literal, or an expression of RE2 for the whole value."""


def in_order(claims: Sequence[Claim]) -> list[Claim]:
    """Routes are judged from the first to the last: the earlier claim holds."""
    return sorted(claims, key=lambda claim: (claim.created, claim.session))


def alternatives(match: Match) -> tuple[tuple[Condition, ...], ...]:
    """The conditions of each route that the match needs.

    Raises:
        InvalidFieldError: no route can say it.
    """
    parts = match.parts if isinstance(match, Or) else (match,)
    return tuple(_conditions(part, match) for part in parts)


def _conditions(part: Match, whole: Match) -> tuple[Condition, ...]:
    found = tuple(_all(part, whole))
    seen: set[tuple[str, str]] = set()
    for condition in found:
        where = condition.subject, condition.name
        if where in seen:
            what = f"{condition.subject} {condition.name}".rstrip()
            raise InvalidFieldError(
                "spec.match", format_match(whole), f"has two conditions on {what}, of which a route can say one", REMEDY
            )
        seen.add(where)
    return found


def _all(part: Match, whole: Match) -> Iterator[Condition]:
    match part:
        case And(parts):
            for each in parts:
                yield from _all(each, whole)
        case Or() | Not():
            what = "`not`" if isinstance(part, Not) else "`or` inside `and`"
            raise InvalidFieldError("spec.match", format_match(whole), f"has {what}, which no route can say", REMEDY)
        case _:
            yield _condition(part)


def _condition(part: Header | BaggageMember | TracestateMember | Path | Method | Query) -> Condition:
    match part:
        case Header(name, value):
            return _string("header", name, value)
        case Query(name, value):
            return _string("query", name, value)
        case Path(value):
            return _string("path", "", value)
        case Method(name):
            return Condition("method", "", "exact", name)
        case BaggageMember() | TracestateMember():
            # An expression for the whole list, as the target's sidecar has it.
            matcher = permission(part).header
            expression = matcher.string_match.safe_regex if matcher and matcher.string_match else None
            if matcher is None or expression is None:
                raise TypeError(part)
            return Condition("header", matcher.name, "regex", expression.regex)


def _string(subject: Subject, name: str, predicate: StringPredicate | None) -> Condition:
    if predicate is None:
        return Condition(subject, name, "present")
    if predicate.kind is StringKind.EXACT and predicate.value:
        return Condition(subject, name, "exact", predicate.value)
    return Condition(subject, name, "regex", _expression(predicate))


def _expression(predicate: StringPredicate) -> str:
    text = regex.literal(predicate.value)
    match predicate.kind:
        case StringKind.EXACT:
            return text
        case StringKind.PREFIX:
            return f"{text}.*"
        case StringKind.SUFFIX:
            return f".*{text}"
        case StringKind.CONTAINS:
            return f".*{text}.*"
        case StringKind.REGEX:
            return regex.render(regex_syntax.parse(predicate.value))
