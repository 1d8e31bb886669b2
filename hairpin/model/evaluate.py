"""What a match means: the reference that the configuration for Envoy is held against.

A request is as Envoy's filters see it: header values trimmed, the path normalised where the listener normalises it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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

BLANKS = " \t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The part of a request that matches look at. `host` stands among the headers, also for HTTP/2."""

    method: str = "GET"
    path: str = "/"
    """With its query."""
    headers: tuple[tuple[str, str], ...] = ()
    """In any case, repeated names included."""

    def values(self, name: str) -> tuple[str, ...]:
        """The values of the headers of this name."""
        return tuple(value.strip(BLANKS) for key, value in self.headers if key.lower() == name)


def matches(match: Match, request: Request) -> bool:
    """Whether the request satisfies the match."""
    match match:
        case And(parts):
            return all(matches(part, request) for part in parts)
        case Or(parts):
            return any(matches(part, request) for part in parts)
        case Not(part):
            return not matches(part, request)
        case Method(name):
            return request.method == name
        case Path(value):
            return holds(value, _before(request.path, "?#"))
        case Header(name, value):
            return any(value is None or holds(value, found) for found in request.values(name))
        case BaggageMember(name, value):
            return any(_any_of(_baggage(header, name), value) for header in request.values("baggage"))
        case TracestateMember(name, value):
            return any(_any_of(_tracestate(header, name), value) for header in request.values("tracestate"))
        case Query(name, value):
            return _any_of(_query(request.path, name), value)


def holds(predicate: StringPredicate, value: str) -> bool:
    """Whether a string satisfies the predicate."""
    match predicate.kind:
        case StringKind.EXACT:
            return value == predicate.value
        case StringKind.PREFIX:
            return value.startswith(predicate.value)
        case StringKind.SUFFIX:
            return value.endswith(predicate.value)
        case StringKind.CONTAINS:
            return predicate.value in value
        case StringKind.REGEX:
            return regex.fullmatch(regex_syntax.parse(predicate.value), value)


def _any_of(values: Iterator[str], predicate: StringPredicate | None) -> bool:
    if predicate is None:
        return next(values, None) is not None
    # Values of members have no blanks; where one has them all the same, no regular expression matches it.
    blanks_fit = predicate.kind is not StringKind.REGEX
    return any(holds(predicate, value) for value in values if blanks_fit or not set(BLANKS) & set(value))


def _baggage(header: str, key: str) -> Iterator[str]:
    """The values of the members of this key: up to the properties, without the blanks around."""
    for member in header.split(","):
        name, equals, rest = member.partition("=")
        if equals and name.strip(BLANKS) == key:
            yield _before(rest, ";").strip(BLANKS)


def _tracestate(header: str, key: str) -> Iterator[str]:
    """The values of the members of this key; blanks may stand around members, not around `=`."""
    for member in header.split(","):
        name, equals, value = member.partition("=")
        if equals and name.lstrip(BLANKS) == key:
            yield value.rstrip(BLANKS)


def _query(path: str, name: str) -> Iterator[str]:
    """The values of the parameters of this name; empty for one without `=`."""
    for parameter in _before(path, "#").partition("?")[2].split("&"):
        key, _, value = parameter.partition("=")
        if key == name:
            yield value


def _before(text: str, stops: str) -> str:
    """The text up to the first of some characters."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
