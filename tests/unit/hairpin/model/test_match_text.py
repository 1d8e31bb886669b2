"""The language of --match."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.errors import InvalidFieldError
from hairpin.model.evaluate import Request, matches
from hairpin.model.match import (
    And,
    BaggageMember,
    Header,
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
from hairpin.model.match_json import match_from_json, match_to_json
from hairpin.model.match_text import LONGEST, parse_match
from tests.unit.hairpin.model import strategies

DOCUMENT = (FilePath(__file__).parents[4] / "docs" / "match.md").read_text()


def exact(value: str) -> StringPredicate:
    return StringPredicate(StringKind.EXACT, value)


def prefix(value: str) -> StringPredicate:
    return StringPredicate(StringKind.PREFIX, value)


def regex(value: str) -> StringPredicate:
    return StringPredicate(StringKind.REGEX, value)


A, B, C = Header("a"), Header("b"), Header("c")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("header x-user=42 and path ^/api", And((Header("x-user", exact("42")), Path(prefix("/api"))))),
        ("header X-User", Header("x-user")),
        ("header x = 42", Header("x", exact("42"))),
        ("header x!=42", Not(Header("x", exact("42")))),
        ("header x^=4", Header("x", prefix("4"))),
        ("header x$=4", Header("x", StringPredicate(StringKind.SUFFIX, "4"))),
        ("header x*=4", Header("x", StringPredicate(StringKind.CONTAINS, "4"))),
        ("header x~4.*", Header("x", regex("4.*"))),
        ("header x=a=b~c", Header("x", exact("a=b~c"))),
        ("header x='a b'", Header("x", exact("a b"))),
        ("header x=\"a 'b'\"", Header("x", exact("a 'b'"))),
        ("header x='it''s'", Header("x", exact("it's"))),
        ("header x=''", Header("x", exact(""))),
        ('header x="and"', Header("x", exact("and"))),
        ("header x=android", Header("x", exact("android"))),
        ("header android", Header("android")),
        ('header "x~y"=1', Header("x~y", exact("1"))),
        ("baggage env=alice", BaggageMember("env", exact("alice"))),
        ("tracestate t@v^=a", TracestateMember("t@v", prefix("a"))),
        ("query a[]=1", Query("a[]", exact("1"))),
        ("path /a", Path(exact("/a"))),
        ("path = /a", Path(exact("/a"))),
        ("path !=/a", Not(Path(exact("/a")))),
        ("path ^=/a", Path(prefix("/a"))),
        ("path $.json", Path(StringPredicate(StringKind.SUFFIX, ".json"))),
        ("path *a", Path(StringPredicate(StringKind.CONTAINS, "a"))),
        ("path '/*'", Path(exact("/*"))),
        ("path ~/v(1|2)/.*", Path(regex("/v(1|2)/.*"))),
        (r"(path ~/a\(b)", Path(regex(r"/a\(b"))),
        ("(path ~/v(1|2))", Path(regex("/v(1|2)"))),
        ("method post", Method("POST")),
        ("method GET,HEAD", Or((Method("GET"), Method("HEAD")))),
        ("method !=GET", Not(Method("GET"))),
        ("header a and header b or header c", Or((And((A, B)), C))),
        ("header a and (header b or header c)", And((A, Or((B, C))))),
        ("header a or header b or header c", Or((A, B, C))),
        ("(header a or header b) or header c", Or((Or((A, B)), C))),
        ("not header a and header b", And((Not(A), B))),
        ("not (header a and header b)", Not(And((A, B)))),
        ("not not header a", Not(Not(A))),
        ("not(header a)and(header b)", And((Not(A), B))),
        ("  ( ( header a ) )\n", A),
    ],
)
def test_what_is_read(text, match):
    assert parse_match(text) == match
    assert parse_match(format_match(match)) == match


@pytest.mark.parametrize(
    ("text", "found", "problem", "remedy"),
    [
        ("header x=1 »adn« path /a", "adn", "neither `and` nor `or`", "did you mean `and`?"),
        ("»haeder« x=1", "haeder", "begins no condition", "did you mean `header`?"),
        ("»x-user=42«", "x-user=42", "begins no condition", "did you mean `header x-user=42`?"),
        ("»/api«", "/api", "begins no condition", "did you mean `path /api`?"),
        ("»POST«", "POST", "begins no condition", "did you mean `method POST`?"),
        ("»header=x«", "header=x", "begins no condition", "write `header `"),
        ("»!header« x", "!header", "begins no condition", "write `not`"),
        ("»and« header x", "and", "begins no condition", "a condition is missing before it"),
        ("header x=1 »path« /a", "path", "stands right after a condition", "write `and` or `or`"),
        ("header x=1 »&&« path /a", "&&", "no word of this language", "write `and`"),
        ("»(«header x", "(", "is not closed", "add a )"),
        ("header x»)«", ")", "closes nothing", "drop it"),
        ("header x=»«", "header x=", "a value for header x should", '""'),
        ("header x= »and« path /a", "and", "a value for header x should", "in quotes"),
        ("header x=»~«a", "~", "stands after an operator", "~ alone for a regular expression"),
        ("header x»:« 42", ":", "is no operator", "one of != = ^= $= *= ~"),
        ("header »«", "header ", "a header's name should", "header x-user=42"),
        ("header »:path«=/a", ":path", "is no header", "match `path` or `query`"),
        ("header »x-hairpin-session«", "x-hairpin-session", "hairpin's own", "another header"),
        ("header x=»'a«", "'", "is not closed", "add another '"),
        ("baggage k=»a;b«", "a;b", "is not a baggage value", "no semicolon"),
        ("path »/api/*«", "/api/*", "would be that very path", "write ^/api/ for all"),
        ("path »api«", "api", "is not a path", "begin with /"),
        ("path »/a?b«", "/a?b", "goes beyond the path", "query NAME=VALUE"),
        ("method »PSOT«", "PSOT", "is not known", "did you mean 'POST'?"),
        ("method GET,»PSOT«", "PSOT", "is not known", "did you mean 'POST'?"),
        ("header x and»«", "header x and", "ends where a condition should follow", "begin one with header"),
        ("»«", "", "is empty", "begin one with header"),
    ],
)
def test_what_is_refused_says_where_what_and_the_remedy(text, found, problem, remedy):
    before, rest = text.split("»")
    marked, after = rest.split("«")
    typed = before + marked + after
    with pytest.raises(InvalidFieldError) as error:
        parse_match(typed)
    assert error.value.field == "--match"
    assert error.value.value == found
    assert problem in error.value.problem
    assert remedy in error.value.remedy
    if typed:
        *_, line, arrow = str(error.value).split("\n")
        assert line == f"  {typed}"
        start = len(before) + 2
        assert arrow == " " * start + "^" * max(1, len(found) if found in (marked, "'") else len(marked))


def test_of_a_long_match_the_place_is_shown():
    text = " and ".join(["header x=1"] * 30) + " adn " + " and ".join(["header x=1"] * 3)
    with pytest.raises(InvalidFieldError) as error:
        parse_match(text)
    *_, line, arrow = str(error.value).split("\n")
    assert len(line) < 120
    assert line[arrow.index("^") :].startswith("adn ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("(" * 100 + "header x" + ")" * 100, "nested too deep"),
        ("not " * 20 + "header x", "nested too deep"),
        (" or ".join(["header x"] * 70), "has 71 conditions"),
        ("header x" + " " * LONGEST, "characters long"),
    ],
)
def test_what_is_too_large_is_refused(text, problem):
    with pytest.raises(InvalidFieldError, match=problem):
        parse_match(text)


@given(strategies.matches(least=2))
def test_what_is_written_is_read_again(match):
    assert parse_match(format_match(match)) == match


@given(strategies.matches())
def test_an_and_or_or_of_one_is_written_as_the_one(match):
    request = Request(method="POST", path="/a?b=a", headers=(("baggage", "a=b"),))
    assert matches(parse_match(format_match(match)), request) is matches(match, request)


@given(strategies.matches())
def test_what_text_holds_json_holds(match):
    parsed = parse_match(format_match(match))
    assert match_from_json(match_to_json(parsed)) == parsed


WORDS = [
    "header",
    "x",
    "=",
    "and",
    "or",
    "not",
    "(",
    ")",
    " ",
    " ",
    "path",
    "/a",
    "^",
    "~",
    "'",
    '"',
    "method",
    "GET",
    "\\",
    "a b",
    "!=",
]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_anything_typed_is_read_or_refused(text):
    with contextlib.suppress(InvalidFieldError):
        match = parse_match(text)
        assert parse_match(format_match(match)) == match


def test_nothing_to_join_can_not_be_written():
    with pytest.raises(ValueError):
        format_match(And(()))


def documented() -> list[str]:
    rows = re.findall(r"^\| (`.*?) \|", DOCUMENT, re.MULTILINE)
    blocks = re.findall(r"```match\n(.*?)```", DOCUMENT, re.DOTALL)
    typed = re.findall(r"--match '(.*?)'", DOCUMENT)
    return [text for row in rows for text in re.findall(r"`(.*?)`", row)] + "".join(blocks).splitlines() + typed


@pytest.mark.parametrize("text", documented())
def test_every_example_of_the_document_is_read(text):
    assert parse_match(format_match(parse_match(text))) == parse_match(text)


def test_the_document_has_examples_of_everything():
    assert len(documented()) > 20
    [example] = re.findall(r"`(header x-user=42 and not path \^/api)` is:", DOCUMENT)
    [document] = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    import json

    assert match_from_json(json.loads(document)) == parse_match(example)
