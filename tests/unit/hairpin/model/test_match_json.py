"""Matches in JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from hairpin.errors import InvalidFieldError
from hairpin.model.match import And, Header, Not, Path, StringKind, StringPredicate
from hairpin.model.match_json import match_from_json, match_to_json
from tests.unit.hairpin.model import strategies


def test_what_is_read():
    document = {
        "and": [
            {"header": {"name": "X-User", "exact": "42"}},
            {"header": {"name": "x-debug", "present": True}},
            {"not": {"path": {"prefix": "/api"}}},
        ]
    }
    user = Header("x-user", StringPredicate(StringKind.EXACT, "42"))
    api = Path(StringPredicate(StringKind.PREFIX, "/api"))
    assert match_from_json(document) == And((user, Header("x-debug"), Not(api)))


@given(strategies.matches())
def test_what_is_written_is_read_again(match):
    assert match_from_json(json.loads(json.dumps(match_to_json(match)))) == match


def nested(levels: int):
    match = {"method": "GET"}
    for _ in range(levels):
        match = {"not": match}
    return match


@pytest.mark.parametrize(
    ("document", "field", "problem", "remedy"),
    [
        ("x", "match", "is not a mapping", "method"),
        ({}, "match", "is empty", "one key per node"),
        ({"method": "GET", "path": {"exact": "/"}}, "match", "has the keys method, path", '{"and": [...]}'),
        ({"haeder": {}}, "match.haeder", "is no known condition", "did you mean 'header'?"),
        ({"method": "get"}, "match.method", "is not known", "did you mean 'GET'?"),
        ({"method": ["GET"]}, "match.method", "is not known", "use one of GET"),
        ({"and": []}, "match.and", "is empty", "put something into it"),
        ({"or": {"method": "GET"}}, "match.or", "is not a list", "[a, b]"),
        ({"and": [{"method": "GET"}] * 65}, "match.and", "is too long", "64"),
        (
            {"and": [{"not": {"header": {"name": "x"}}}]},
            "match.and[0].not.header",
            "does not say",
            "exact, prefix, suffix",
        ),
        ({"header": {"exact": "1"}}, "match.header.name", "is missing", "add the field"),
        (
            {"header": {"name": "x", "exact": "1", "prefix": "2"}},
            "match.header",
            "has exact and prefix",
            "one of exact",
        ),
        ({"header": {"name": "x", "exat": "1"}}, "match.header.exat", "in no known field", "did you mean 'exact'?"),
        ({"header": {"name": "x", "exact": 1}}, "match.header.exact", "is not a string", "in quotes"),
        ({"header": {"name": "x", "present": False}}, "match.header.present", "is not true", '"not"'),
        ({"header": {"name": "x y", "present": True}}, "match.header.name", "is not a header's name", "letters"),
        ({"header": {"name": ":authority", "present": True}}, "match.header.name", "is no header", "`host`"),
        ({"header": {"name": "X-Hairpin-Session", "present": True}}, "match.header.name", "hairpin's own", "another"),
        (
            {"header": {"name": "x", "exact": " a"}},
            "match.header.exact",
            "is not a header's value",
            "blanks at its ends",
        ),
        ({"header": {"name": "x", "exact": "a\nb"}}, "match.header.exact", "is not a header's value", "control"),
        ({"header": {"name": "x", "exact": "\ud800"}}, "match.header.exact", "is not a header's value", "control"),
        ({"header": {"name": "x", "prefix": ""}}, "match.header.prefix", "is empty", "drop"),
        ({"header": {"name": "x", "exact": "a" * 1025}}, "match.header.exact", "is 1025 characters long", "1024"),
        ({"header": {"name": "x", "regex": "a("}}, "match.header.regex", "has a ( without its )", r"\("),
        ({"baggage": {"key": "k", "exact": "a,b"}}, "match.baggage.exact", "is not a baggage value", "no comma"),
        ({"tracestate": {"key": "K", "exact": "a"}}, "match.tracestate.key", "is not a tracestate key", "lower-case"),
        ({"query": {"name": "a&b", "present": True}}, "match.query.name", "is not a query parameter's name", "&"),
        ({"path": {"prefix": "api"}}, "match.path.prefix", "is not a path", "begin with /"),
        ({"path": {"exact": "/a?b"}}, "match.path.exact", "goes beyond the path", "query"),
        ({"path": {"present": True}}, "match.path.present", "in no known field", "prefix"),
        (nested(16), "match.not" + ".not" * 15, "is nested too deep", "16 levels"),
        ({"or": [{"and": [{"method": "GET"}] * 9}] * 8}, "match", "has 81 conditions", "64 at most"),
    ],
)
def test_what_is_refused_names_field_value_and_remedy(document, field, problem, remedy):
    with pytest.raises(InvalidFieldError) as error:
        match_from_json(document)
    assert error.value.field == field
    assert problem in error.value.problem
    assert remedy in error.value.remedy


def test_the_field_is_as_told():
    with pytest.raises(InvalidFieldError) as error:
        match_from_json({"not": 1}, "spec.match")
    assert error.value.field == "spec.match.not"


def test_the_deepest_that_fits():
    assert match_to_json(match_from_json(nested(15))) == nested(15)
