"""What matches mean."""

from __future__ import annotations

import pytest

from hairpin.model.evaluate import Request, matches
from hairpin.model.match import And, Or
from hairpin.model.match_text import parse_match


@pytest.mark.parametrize(
    ("text", "request_", "verdict"),
    [
        ("header x-a=1", Request(headers=(("X-A", " 1\t"),)), True),
        ("header x-a", Request(headers=(("x-a", ""),)), True),
        ("header x-a=2", Request(headers=(("x-a", "1"), ("x-a", "2"))), True),
        ("not header x-a=1", Request(headers=(("x-a", "1"), ("x-a", "2"))), False),
        ("path /a", Request(path="/a?b"), True),
        ("path /a", Request(path="/a#b"), True),
        ("query b", Request(path="/a?b"), True),
        ("query b", Request(path="/a#?b"), False),
        ("query b=1", Request(path="/a?b=0&b=1#c"), True),
        ("method GET", Request(method="GET"), True),
        ("method GET", Request(method="get"), False),
        ("baggage k=a", Request(headers=(("baggage", "x=1, k = a ;p"),)), True),
        ("tracestate k=a", Request(headers=(("tracestate", "x=1, k=a "),)), True),
        ("tracestate k=a", Request(headers=(("tracestate", "k =a"),)), False),
        ("tracestate k*=a", Request(headers=(("tracestate", "k= a b"),)), True),
        ("tracestate k~.*", Request(headers=(("tracestate", "k=a b"),)), False),
    ],
)
def test_conditions(text, request_, verdict):
    assert matches(parse_match(text), request_) is verdict


def test_nothing_to_join():
    assert matches(And(()), Request())
    assert not matches(Or(()), Request())
