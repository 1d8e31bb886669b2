"""Permissions of RBAC: their shape. What they mean is asked of the real Envoy, in tests/contract/test_match_envoy.py."""

from __future__ import annotations

import re

import pytest
from envoy_data_plane.envoy.config.rbac.v3 import Permission
from hypothesis import given

from hairpin.model.match import And, Header, Or, StringKind, StringPredicate
from hairpin.model.match_text import parse_match
from tests.unit.hairpin.model import strategies
from xds_server.generate.match import permission


def of(text: str):
    return permission(parse_match(text)).to_dict()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("header x-a", {"header": {"name": "x-a", "presentMatch": True}}),
        ("header x-a=1", {"header": {"name": "x-a", "stringMatch": {"exact": "1"}}}),
        ("header x-a=''", {"header": {"name": "x-a", "stringMatch": {"exact": ""}}}),
        ("header x-a^=1", {"header": {"name": "x-a", "stringMatch": {"prefix": "1"}}}),
        ("header x-a$=1", {"header": {"name": "x-a", "stringMatch": {"suffix": "1"}}}),
        ("header x-a*=1", {"header": {"name": "x-a", "stringMatch": {"contains": "1"}}}),
        (r"header x-a~\d+", {"header": {"name": "x-a", "stringMatch": {"safeRegex": {"regex": "[0-9]+"}}}}),
        ("method GET", {"header": {"name": ":method", "stringMatch": {"exact": "GET"}}}),
        ("path ^/a", {"urlPath": {"path": {"prefix": "/a"}}}),
        ("not path /a", {"notRule": {"urlPath": {"path": {"exact": "/a"}}}}),
    ],
)
def test_conditions(text, expected):
    assert of(text) == expected


def test_and_or():
    one, other = of("header x"), of("method GET")
    assert of("header x and method GET") == {"andRules": {"rules": [one, other]}}
    assert of("header x or method GET") == {"orRules": {"rules": [one, other]}}


def test_nothing_to_join_is_everything_or_nothing():
    assert permission(And(())).to_dict() == {"any": True}
    assert permission(Or(())).to_dict() == {"notRule": {"any": True}}


@pytest.mark.parametrize(
    ("text", "header", "regex"),
    [
        ("baggage a.k=x+y", "baggage", r"(?:.*,)?[ \t]*a\.k[ \t]*=[ \t]*x\+y[ \t]*(?:[,;].*)?"),
        ("baggage k", "baggage", r"(?:.*,)?[ \t]*k[ \t]*=[ \t]*[^,;]*[ \t]*(?:[,;].*)?"),
        ("tracestate t@v^=a", "tracestate", r"(?:.*,)?[ \t]*t@v=a[^,]*[ \t]*(?:,.*)?"),
        ("query k=1", ":path", r"[^?#]*\?(?:[^#]*&)?k=1(?:[&#].*)?"),
        ("query k", ":path", r"[^?#]*\?(?:[^#]*&)?k(?:=[^&#]*)?(?:[&#].*)?"),
        ("query k~a.c", ":path", r"[^?#]*\?(?:[^#]*&)?k=(?:a[^\x09\x0a #\&]c)(?:[&#].*)?"),
    ],
)
def test_members_are_regular_expressions_over_the_whole_header(text, header, regex):
    found = of(text)["header"]
    assert found["name"] == header
    assert found["stringMatch"]["safeRegex"]["regex"] == regex


@given(strategies.matches())
def test_every_match_has_a_permission_that_survives_the_wire(match):
    found = permission(match)
    assert Permission.parse(bytes(found)) == found


@given(strategies.matches())
def test_regular_expressions_are_ascii_and_compile(match):
    def regexes(document):
        if isinstance(document, dict):
            for key, value in document.items():
                if key == "regex":
                    yield value
                else:
                    yield from regexes(value)
        elif isinstance(document, list):
            for item in document:
                yield from regexes(item)

    for pattern in regexes(permission(match).to_dict()):
        re.compile(pattern.encode("ascii"))


@pytest.mark.parametrize("kind", [StringKind.PREFIX, StringKind.SUFFIX, StringKind.CONTAINS])
def test_an_empty_part_which_envoy_refuses_is_any_value(kind):
    found = permission(Header("x", StringPredicate(kind, ""))).to_dict()
    assert found == {"header": {"name": "x", "stringMatch": {"safeRegex": {"regex": ".*"}}}}
