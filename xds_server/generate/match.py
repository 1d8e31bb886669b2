"""From a match to Envoy's RBAC permission: what the sidecar compiles and judges requests by. Pure.

Members of lists (`baggage`, `tracestate`, the query) become regular expressions over the whole header; everything that a
user gave is escaped. Envoy joins headers of one name by commas before it compares.
"""

from __future__ import annotations

import re

from envoy_data_plane.envoy.config.rbac.v3 import Permission, PermissionSet
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.type.matcher.v3 import PathMatcher, RegexMatcher, StringMatcher

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

SPACE = "[ \t]*"


def permission(match: Match) -> Permission:
    """The permission that holds for exactly the requests of the match."""
    match match:
        case And(parts):
            return Permission(and_rules=PermissionSet(rules=[permission(part) for part in parts]))
        case Or(parts):
            return Permission(or_rules=PermissionSet(rules=[permission(part) for part in parts]))
        case Not(part):
            return Permission(not_rule=permission(part))
        case Method(name):
            return _header(":method", StringMatcher(exact=name))
        case Path(value):
            return Permission(url_path=PathMatcher(path=_string(value)))
        case Header(name, None):
            return Permission(header=HeaderMatcher(name=name, present_match=True))
        case Header(name, StringPredicate() as value):
            return _header(name, _string(value))
        case Query(name, value):
            return _header(":path", _regex(rf"[^?]*\?(?:.*&)?{_pair(name, value)}(?:&.*)?"))
        case BaggageMember(key, value):
            return _header("baggage", _regex(_member(key, value)))
        case TracestateMember(key, value):
            return _header("tracestate", _regex(_member(key, value)))
    raise AssertionError(match)


def _header(name: str, matcher: StringMatcher) -> Permission:
    return Permission(header=HeaderMatcher(name=name, string_match=matcher))


def _string(predicate: StringPredicate) -> StringMatcher:
    match predicate.kind:
        case StringKind.EXACT:
            return StringMatcher(exact=predicate.value)
        case StringKind.PREFIX:
            return StringMatcher(prefix=predicate.value)
        case StringKind.SUFFIX:
            return StringMatcher(suffix=predicate.value)
        case StringKind.CONTAINS:
            return StringMatcher(contains=predicate.value)
        case StringKind.REGEX:
            return _regex(predicate.value)


def _regex(pattern: str) -> StringMatcher:
    return StringMatcher(safe_regex=RegexMatcher(regex=pattern))


def _pair(name: str, value: StringPredicate | None) -> str:
    if value is None:
        return f"{re.escape(name)}(?:=[^&]*)?"
    equals = "=?" if value.kind is StringKind.EXACT and not value.value else "="
    return re.escape(name) + equals + _part(value, "[^&]*")


def _member(key: str, value: StringPredicate | None) -> str:
    """A list's member, anywhere in it, with properties or without."""
    inside = _part(value, "[^,;]*")
    return f"(?:.*,)?{SPACE}{re.escape(key)}{SPACE}={SPACE}{inside}{SPACE}(?:;[^,]*)?(?:,.*)?"


def _part(value: StringPredicate | None, anything: str) -> str:
    if value is None:
        return anything
    text = re.escape(value.value)
    match value.kind:
        case StringKind.EXACT:
            return text
        case StringKind.PREFIX:
            return text + anything
        case StringKind.SUFFIX:
            return anything + text
        case StringKind.CONTAINS:
            return anything + text + anything
        case StringKind.REGEX:
            return f"(?:{value.value})"
