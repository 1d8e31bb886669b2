"""Match: the predicate that picks a session's requests.

A tree of frozen values with no behaviour of its own. Reading and writing it is in `match_text` (the command line's
language) and `match_json` (files and the API); what two of them have in common is in `overlap`; what Envoy makes of it
is in `xds_server.generate.match`, and `evaluate` is the reference that a test holds Envoy against.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class StringKind(StrEnum):
    """How a string is compared. A regular expression is RE2 and must match the whole value, as in Envoy."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class StringPredicate:
    """A predicate on a string; case-sensitive."""

    kind: StringKind
    value: str


@dataclass(frozen=True, slots=True)
class Header:
    """A request header. `value` None asks only that it is there.

    Of several headers of one name any may satisfy it: so Envoy's RBAC filter has judged since March 2026 (GHSA-ghc4-35x6-crw5);
    before, it joined them by commas first.
    """

    name: str
    value: StringPredicate | None = None


@dataclass(frozen=True, slots=True)
class BaggageMember:
    """A member of the W3C `baggage` header (w3.org/TR/baggage), compared as it was sent, without decoding."""

    key: str
    value: StringPredicate | None = None


@dataclass(frozen=True, slots=True)
class TracestateMember:
    """A member of the W3C `tracestate` header (w3.org/TR/trace-context)."""

    key: str
    value: StringPredicate | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """The path without its query."""

    value: StringPredicate


@dataclass(frozen=True, slots=True)
class Method:
    """The request's method, upper case."""

    name: str


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query, compared as it was sent, without decoding; any of several of one name."""

    name: str
    value: StringPredicate | None = None


@dataclass(frozen=True, slots=True)
class And:
    """All of them; true when there are none."""

    parts: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them; false when there are none."""

    parts: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Match


Match: TypeAlias = Header | BaggageMember | TracestateMember | Path | Method | Query | And | Or | Not
