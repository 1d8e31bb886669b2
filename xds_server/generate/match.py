"""From a match to the RBAC permission that a sidecar compiles and judges requests by. Pure.

Only plain RBAC: header matchers, `url_path`, and, or, not. Members of `baggage`, `tracestate` and the query become regular
expressions over a whole header, any of several of one name (before March 2026 Envoy joined them by commas first, which makes
no difference to lists). What a user gave is escaped; a user's own expression is confined to the bytes that a member's value
may have, so that it can't reach into the next member.

Envoy compiles RE2 for Latin-1 and refuses programs of more than 100 steps unless its bootstrap says otherwise: one that
takes matches needs `hairpin.envoy.config.ISTIO_RUNTIME`, as Istio's proxies have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from envoy_data_plane.envoy.config.rbac.v3 import Permission, PermissionSet
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.type.matcher.v3 import PathMatcher, RegexMatcher, StringMatcher

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

_OWS = r"[ \t]*"  # RFC 9110's optional white space


@dataclass(frozen=True, slots=True)
class _List:
    """How a list of `name=value` is written, in regular expressions."""

    before: str
    """What may stand before a member."""
    after: str
    """What may stand after a member's value."""
    equals: str
    char: str
    """What a value is made of."""
    alphabet: frozenset[int]
    """The same for a user's expression: no blanks either, which `after` takes."""
    bare: bool = False
    """Whether a member without `=` has an empty value."""


def _all_but(chars: bytes) -> frozenset[int]:
    return frozenset(range(256)) - frozenset(chars)


# baggage: OWS around everything; properties follow a semicolon (w3.org/TR/baggage, 3.3.1).
_BAGGAGE = _List(f"(?:.*,)?{_OWS}", rf"{_OWS}(?:[,;].*)?", f"{_OWS}={_OWS}", "[^,;]", _all_but(b",; \t"))
# tracestate: OWS around members, not around `=` (w3.org/TR/trace-context, 3.3.1).
_TRACESTATE = _List(f"(?:.*,)?{_OWS}", f"{_OWS}(?:,.*)?", "=", "[^,]", _all_but(b", \t"))
_QUERY = _List(r"[^?#]*\?(?:[^#]*&)?", "(?:[&#].*)?", "=", "[^&#]", _all_but(b"&# \t"), bare=True)


def permission(match: Match) -> Permission:
    """The permission that grants exactly the requests of the match.

    `hairpin.model.evaluate` says what those are; a test holds the two against each other in the real Envoy.
    """
    match match:
        case And(()):
            return Permission(any=True)
        case Or(()):
            return Permission(not_rule=Permission(any=True))
        case And(parts):
            return Permission(and_rules=PermissionSet(rules=[permission(part) for part in parts]))
        case Or(parts):
            return Permission(or_rules=PermissionSet(rules=[permission(part) for part in parts]))
        case Not(part):
            return Permission(not_rule=permission(part))
        case _:
            return _condition(match)


def _condition(match: Header | BaggageMember | TracestateMember | Path | Method | Query) -> Permission:
    match match:
        case Header(name, value):
            if value is None:
                return Permission(header=HeaderMatcher(name=name, present_match=True))
            return _header(name, _string(value))
        case Method(name):
            return _header(":method", StringMatcher(exact=name))
        case Path(value):
            return Permission(url_path=PathMatcher(path=_string(value)))
        case BaggageMember(key, value):
            return _header("baggage", _regex(_member(_BAGGAGE, key, value)))
        case TracestateMember(key, value):
            return _header("tracestate", _regex(_member(_TRACESTATE, key, value)))
        case Query(name, value):
            return _header(":path", _regex(_member(_QUERY, name, value)))
        case _:
            assert_never(match)


def _header(name: str, matcher: StringMatcher) -> Permission:
    return Permission(header=HeaderMatcher(name=name, string_match=matcher))


def _string(predicate: StringPredicate) -> StringMatcher:
    match predicate.kind:
        case StringKind.EXACT:
            return StringMatcher(exact=predicate.value)
        case StringKind.REGEX:
            return _regex(regex.render(regex_syntax.parse(predicate.value)))
        case _ if not predicate.value:
            return _regex(".*")  # Envoy refuses an empty prefix, suffix or infix
        case StringKind.PREFIX:
            return StringMatcher(prefix=predicate.value)
        case StringKind.SUFFIX:
            return StringMatcher(suffix=predicate.value)
        case StringKind.CONTAINS:
            return StringMatcher(contains=predicate.value)


def _regex(pattern: str) -> StringMatcher:
    return StringMatcher(safe_regex=RegexMatcher(regex=pattern))


def _member(syntax: _List, name: str, predicate: StringPredicate | None) -> str:
    """An expression for a whole list in which a member of this name satisfies the predicate."""
    value, may_be_empty = _value(syntax, predicate)
    assigned = f"{syntax.equals}{value}"
    if syntax.bare and may_be_empty:
        assigned = f"(?:{assigned})?"
    return f"{syntax.before}{regex.literal(name)}{assigned}{syntax.after}"


def _value(syntax: _List, predicate: StringPredicate | None) -> tuple[str, bool]:
    """An expression for a member's value, and whether the empty one is among them."""
    anything = f"{syntax.char}*"
    if predicate is None:
        return anything, True
    text = regex.literal(predicate.value)
    match predicate.kind:
        case StringKind.EXACT:
            return text, not text
        case StringKind.PREFIX:
            return text + anything, not text
        case StringKind.SUFFIX:
            return anything + text, not text
        case StringKind.CONTAINS:
            return anything + text + anything, not text
        case StringKind.REGEX:
            node = regex.within(regex_syntax.parse(predicate.value), syntax.alphabet)
            return f"(?:{regex.render(node)})", regex.is_nullable(node)
