"""Relations of matches: what people write by table, soundness by brute force over all small requests."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hairpin.model.evaluate import Request, matches
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
from hairpin.model.match_text import parse_match
from hairpin.model.overlap import Relation, relation

EQUAL, CONTAINS, CONTAINED, DISJOINT, UNDECIDABLE = Relation
OPPOSITE = {CONTAINS: CONTAINED, CONTAINED: CONTAINS}

STRICT = [
    ("header x=1", "header x=1", EQUAL),
    ("header x", "header x=1", CONTAINS),
    ("header x^=a", "header x^=ab", CONTAINS),
    ("header x^=a", "header x=abc", CONTAINS),
    ("header x$=b", "header x=ab", CONTAINS),
    ("header x*=b", "header x^=ab", CONTAINS),
    ("header x*=b", "header x$=abc", CONTAINS),
    ("header x*=b", "header x*=abc", CONTAINS),
    ("header x~'a.*'", "header x=ab", CONTAINS),
    ("header x~'a.*'", "header x~'a.*'", EQUAL),
    ("header x", "header x~'a.*'", CONTAINS),
    ("header x~'a.*'", "header x~'a.+'", UNDECIDABLE),
    ("header x=1", "header x=2", UNDECIDABLE),  # a request may have both
    ("header x=1", "not header x=1", DISJOINT),
    ("header x", "not header x", DISJOINT),
    ("header x=1", "not header x", DISJOINT),
    ("header x=1", "header y=1", UNDECIDABLE),
    ("header x=1", "header x=1 and path ^/a", CONTAINS),
    ("header x=1", "header x=1 or path ^/a", CONTAINED),
    ("header x=1 and path ^/a", "header x=1 and path ^/b", DISJOINT),
    ("header x=1 and path ^/a", "header x=1 and path ^/a/b", CONTAINS),
    ("header x=1 and path ^/a", "header x=1 and not path ^/a", DISJOINT),
    ("header x=1 and path ^/a", "path ^/a and header x=1", EQUAL),
    ("header x=1 and (path /a or path /b)", "header x=1 and path /a or header x=1 and path /b", EQUAL),
    ("not (header x and header y)", "not header x or not header y", EQUAL),
    ("method GET", "method POST", DISJOINT),
    ("method GET,HEAD", "method GET", CONTAINS),
    ("method GET,HEAD", "not method POST", CONTAINED),
    ("path ^/a", "path /b", DISJOINT),
    ("path $a", "path $b", DISJOINT),
    ("path $a", "path $ba", CONTAINS),
    ("path /ab", "path ~'/a.'", CONTAINED),
    ("path /ab", "path ~'/b.'", DISJOINT),
    ("query a=1", "query a=2", UNDECIDABLE),
    ("query a", "query a=2", CONTAINS),
    ("baggage k=1", "header baggage", CONTAINED),
    ("baggage k=1", "not header baggage", DISJOINT),
    ("tracestate k=1", "header tracestate", CONTAINED),
    ("tracestate k=1", "baggage k=1", UNDECIDABLE),
    ("header x or not header x", "path /a", CONTAINS),
    ("header x and not header x", "path /a", DISJOINT),
]
UNIQUE = [
    ("header x=1", "header x=2", DISJOINT),
    ("header x-env=alice and path ^/a", "header x-env=bob", DISJOINT),
    ("not header x=1", "header x=2", CONTAINS),
    ("header x^=a", "header x^=b", DISJOINT),
    ("header x^=a and header x^=ab", "header x^=ab", EQUAL),
    ("baggage k=1", "baggage k=2", DISJOINT),
    ("tracestate k=1", "tracestate k=2", DISJOINT),
    ("query a=1", "query a=2", UNDECIDABLE),
    ("header x^=a", "header x$=b", UNDECIDABLE),
]


@pytest.mark.parametrize(("a", "b", "expected"), STRICT)
def test_what_people_write(a, b, expected):
    assert relation(parse_match(a), parse_match(b), unique=False) is expected
    assert relation(parse_match(b), parse_match(a), unique=False) is OPPOSITE.get(expected, expected)


@pytest.mark.parametrize(("a", "b", "expected"), UNIQUE)
def test_if_headers_and_members_come_once(a, b, expected):
    assert relation(parse_match(a), parse_match(b)) is expected
    assert relation(parse_match(b), parse_match(a)) is OPPOSITE.get(expected, expected)


def test_too_large_to_see_through():
    many = And(
        tuple(Or(tuple(Header(f"x{i}", StringPredicate(StringKind.EXACT, str(j))) for j in range(6))) for i in range(9))
    )
    other = And(
        tuple(
            Or(tuple(Header(f"x{i}", StringPredicate(StringKind.EXACT, str(j))) for j in range(1, 7))) for i in range(9)
        )
    )
    assert relation(many, other) is UNDECIDABLE
    assert relation(many, many) is EQUAL


def test_a_regular_expression_that_takes_long_decides_nothing():
    slow = Path(StringPredicate(StringKind.REGEX, "/(?:a|b|ab){900}"))
    assert relation(slow, Path(StringPredicate(StringKind.EXACT, "/" + "a" * 1000))) is UNDECIDABLE


# All requests of a small world, against whatever is claimed of matches of the same world.

VALUES = ["", "a", "b", "ab", "ba", "aab"]
KINDS = [kind for kind in StringKind if kind is not StringKind.REGEX]
PREDICATES = st.one_of(
    st.builds(StringPredicate, st.sampled_from(KINDS), st.sampled_from(VALUES)),
    st.builds(StringPredicate, st.just(StringKind.REGEX), st.sampled_from(["a.*", "a|b", ".+b"])),
)
CONDITIONS: st.SearchStrategy[Match] = st.one_of(
    st.builds(Header, st.just("x"), st.none() | PREDICATES),
    st.builds(Header, st.just("baggage"), st.none()),
    st.builds(BaggageMember, st.just("k"), st.none() | PREDICATES),
    st.builds(TracestateMember, st.just("k"), st.none() | PREDICATES),
    st.builds(Query, st.just("q"), st.none() | PREDICATES),
    st.builds(Path, PREDICATES),
    st.builds(Method, st.sampled_from(["GET", "PUT"])),
)
MATCHES = st.recursive(
    CONDITIONS,
    lambda part: st.one_of(
        st.builds(And, st.lists(part, max_size=3).map(tuple)),
        st.builds(Or, st.lists(part, max_size=3).map(tuple)),
        st.builds(Not, part),
    ),
    max_leaves=4,
)


def subjects_of(match: Match) -> set[str]:
    match match:
        case And(parts) | Or(parts):
            return set().union(*map(subjects_of, parts))
        case Not(part):
            return subjects_of(part)
        case Header(name, _):
            return {name}
        case _:
            return {type(match).__name__}


def world(about: set[str], *, unique: bool) -> list[Request]:
    """All requests that differ in what the matches are about."""
    several = [(), *((value,) for value in VALUES), *(() if unique else itertools.combinations(VALUES, 2))]
    lists = [None, *(",".join(f"k={value}" for value in values) for values in several if values)]
    queries = [(), *((value,) for value in VALUES), *itertools.combinations(VALUES, 2)]
    axes = [
        several if "x" in about else [()],
        [*lists, "other=1"] if about & {"baggage", "BaggageMember"} else [None],
        lists if "TracestateMember" in about else [None],
        queries if "Query" in about else [()],
        VALUES if "Path" in about else [""],
        ["GET", "PUT", "POST"] if "Method" in about else ["GET"],
    ]
    return [
        Request(
            method=method,
            path=path + ("?" + "&".join(f"q={value}" for value in query) if query else ""),
            headers=(
                *(("x", value) for value in xs),
                *(("baggage", value) for value in [baggage] if value is not None),
                *(("tracestate", value) for value in [tracestate] if value is not None),
            ),
        )
        for xs, baggage, tracestate, query, path, method in itertools.product(*axes)
    ]


@settings(max_examples=150, deadline=None)
@given(MATCHES, MATCHES, st.booleans())
def test_never_claims_what_is_not_so(a, b, unique):
    about = subjects_of(a) | subjects_of(b)
    claim = relation(a, b, unique=unique)
    if len(about) > 3:
        about = set(sorted(about)[:3])
    verdicts = [(matches(a, request), matches(b, request)) for request in world(about, unique=unique)]
    assert HOLDS[claim](verdicts), claim


HOLDS = {
    EQUAL: lambda verdicts: all(x is y for x, y in verdicts),
    CONTAINS: lambda verdicts: all(x or not y for x, y in verdicts),
    CONTAINED: lambda verdicts: all(y or not x for x, y in verdicts),
    DISJOINT: lambda verdicts: not any(x and y for x, y in verdicts),
    UNDECIDABLE: lambda _: True,
}


@settings(deadline=None)
@given(MATCHES, MATCHES)
def test_both_ways_the_same_is_claimed(a, b):
    there, back = relation(a, b), relation(b, a)
    assert back is OPPOSITE.get(there, there)


@settings(deadline=None)
@given(MATCHES)
def test_equal_to_itself(a):
    assert relation(a, a) is EQUAL
