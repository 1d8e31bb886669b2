"""Envoy judges requests as `hairpin.model.evaluate` says: RBAC shadow rules in the real binary, against the reference."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Any

import pytest

from hairpin.envoy import config
from hairpin.envoy.config import ISTIO_RUNTIME
from hairpin.envoy.process import ManagedEnvoy
from hairpin.model.evaluate import Request, matches
from hairpin.model.match import And, BaggageMember, Header, Match, Or, Path, Query, StringKind, TracestateMember
from hairpin.model.match_json import match_from_json
from hairpin.model.match_rules import parts_of
from hairpin.model.match_text import parse_match
from tests.support.envoy import HOST, http_listener, static
from tests.support.matches import Dice
from xds_server.generate.match import permission

pytestmark = pytest.mark.envoy

CONDITIONS, MATCHES, REQUESTS = 400, 150, 150

TABLE = [
    # A key must not match inside another's value, key or property, nor a value beyond its own end.
    ("baggage k=a", [("baggage", "x=k=a")], False),
    ("baggage k=a", [("baggage", "x=1;k=a")], False),
    ("baggage k=a", [("baggage", "ak=a")], False),
    ("baggage k=a", [("baggage", "k=ab")], False),
    ("baggage k=a", [("baggage", "k=a;p=1")], True),
    ("baggage k=a", [("baggage", "x=1 , k = a ; p=1 ,y=2")], True),
    ("baggage k=a", [("baggage", "x=1"), ("baggage", "k=a")], True),
    ("baggage k~'a.*'", [("baggage", "k=a")], True),
    ("baggage k~'a.*b'", [("baggage", "k=a,x=b")], False),
    ("baggage k~'a.*b'", [("baggage", "k=a;x=b")], False),
    ("baggage k~'[^x]*b'", [("baggage", "k=a,y=b")], False),
    (r"baggage k~'a\Wb'", [("baggage", "k=a,b")], False),
    (r"baggage k~'a\Wb'", [("baggage", "k=a-b")], True),
    ("baggage k~'a|b'", [("baggage", "k=b")], True),
    ("baggage k~'a|b'", [("baggage", "k=ab")], False),
    ("baggage k$=b", [("baggage", "k=a,x=b")], False),
    ("baggage k", [("baggage", "k")], False),
    ("baggage k", [("baggage", "k=")], True),
    ("baggage k=''", [("baggage", "k=")], True),
    ("baggage k=''", [("baggage", "k=a")], False),
    ("baggage a.k=1", [("baggage", "a-k=1")], False),
    ("tracestate k@v=a", [("tracestate", "x=1,k@v=a")], True),
    ("tracestate k=a", [("tracestate", "k =a")], False),
    ("tracestate k~'a.*'", [("tracestate", "k=a;b:c ,x=1")], True),
    ("query k=a", "/p?k=a", True),
    ("query k=a", "/p?x=1&k=a&y=2", True),
    ("query k=a", "/p?xk=a", False),
    ("query k=a", "/p?x=k=a", False),
    ("query k=a", "/p?x?k=a", False),
    ("query k=a", "/k=a", False),
    ("query k", "/p?k", True),
    ("query k=''", "/p?k", True),
    ("query k~'a?'", "/p?k&x", True),
    ("query k~'a.*b'", "/p?k=a&x=b", False),
    ("path /p", "/p?x=1", True),
    ("path ^/p and not path $x", "/p?a=x", True),
    ("path ~'/p/[0-9]+'", "/p/12", True),
    ("path ~'/p/[0-9]+'", "/p/12x", False),
    ("header x-a", [("X-A", "")], True),
    ("header x-a=''", [("x-a", "")], True),
    ("header x-a=''", [], False),
    ("header x-a!=1", [], True),
    ("header x-a=1", [("x-a", "1"), ("x-a", "2")], True),
    ("header x-a=2", [("x-a", "1"), ("x-a", "2")], True),
    ("header x-a='1,2'", [("x-a", "1"), ("x-a", "2")], False),
    ("header x-a!=1", [("x-a", "1"), ("x-a", "2")], False),
    ("header x-a=1 and header x-a=2", [("x-a", "1"), ("x-a", "2")], True),
    ("header cookie=b=2", [("cookie", "a=1"), ("cookie", "b=2")], True),
    ("header host=example.test", [("host", "example.test")], True),
    ("header x-a=é", [("x-a", "é")], True),
    ("header x-a~'(é|è)+'", [("x-a", "éè")], True),
    ("header x-a~'..'", [("x-a", "é")], True),  # RE2 for Latin-1: a byte each
]


class Judge:
    """An Envoy with one RBAC filter per match, each with shadow rules alone, and a route that answers with all verdicts."""

    def __init__(self, port: int, names: Sequence[str]) -> None:
        self._port = port
        self._names = names

    async def ask(self, requests: Sequence[Request]) -> list[list[str]]:
        """By request, the policy that each filter reports; empty for none."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            answers = []
            for request in requests:
                writer.write(_wire(request))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), (request, head)
                lines = [line for line in head.decode().split("\r\n") if line.startswith("x-verdicts-")]
                answers.append([verdict for line in lines for verdict in line.partition(": ")[2].split("|")])
            assert all(len(answer) == len(self._names) for answer in answers)
            return answers
        finally:
            writer.close()


def _wire(request: Request) -> bytes:
    headers = list(request.headers)
    if "host" not in dict(headers):
        headers.append(("host", "judge"))
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "content-length: 0", "", ""]).encode()


@asynccontextmanager
async def judge(filters: Sequence[dict[str, Match]], port: int, directory: FilePath) -> AsyncIterator[Judge]:
    """An Envoy with one RBAC filter for each of `filters`, which are policies by name."""
    names = [f"m{index}_" for index in range(len(filters))]
    rbac = tuple(_rbac(name, policies) for name, policies in zip(names, filters, strict=True))
    verdicts = [f"%DYNAMIC_METADATA(envoy.filters.http.rbac:{name}shadow_effective_policy_id)%" for name in names]
    some = [verdicts[at : at + 50] for at in range(0, len(verdicts), 50)]  # a header's format has 16 KiB at most
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "response_headers_to_add": [
            config.set_header(f"x-verdicts-{at}", "|".join(few)) for at, few in enumerate(some)
        ],
    }
    bootstrap = static(http_listener(port, route, filters=rbac))
    bootstrap["layered_runtime"] = ISTIO_RUNTIME
    async with ManagedEnvoy("judge", bootstrap, directory):
        yield Judge(port, names)


def _rbac(name: str, policies: dict[str, Match]) -> config.Config:
    rules: dict[str, Any] = {
        policy: {"permissions": [permission(match).to_dict()], "principals": [{"any": True}]}
        for policy, match in policies.items()
    }
    return config.typed(
        f"rbac.{name}",
        "extensions.filters.http.rbac.v3.RBAC",
        shadow_rules={"action": "ALLOW", "policies": rules},
        shadow_rules_stat_prefix=name,
    )


async def verdicts_of(
    cases: Sequence[Match], requests: Sequence[Request], port: int, directory: FilePath
) -> list[list[bool]]:
    async with judge([{"yes": match} for match in cases], port, directory) as envoy:
        return [[verdict == "yes" for verdict in answer] for answer in await envoy.ask(requests)]


async def test_table(ports, tmp_path):
    cases = [parse_match(text) for text, _, _ in TABLE]
    requests = [
        Request(path=given) if isinstance(given, str) else Request(headers=tuple(given)) for _, given, _ in TABLE
    ]
    expected = [verdict for _, _, verdict in TABLE]
    assert [matches(match, request) for match, request in zip(cases, requests, strict=True)] == expected
    verdicts = await verdicts_of(cases, requests, ports(), tmp_path)
    wrong = [TABLE[index] for index, want in enumerate(expected) if verdicts[index][index] is not want]
    assert not wrong
    others = [[matches(match, request) for match in cases] for request in requests]
    assert verdicts == others


async def test_at_random(ports, tmp_path):
    dice = Dice(20261123)
    cases = [dice.condition() for _ in range(CONDITIONS)] + [dice.match() for _ in range(MATCHES)]
    requests = [dice.request() for _ in range(REQUESTS)]
    verdicts = await verdicts_of(cases, requests, ports(), tmp_path)
    wrong = [
        (match, request, verdict)
        for request, row in zip(requests, verdicts, strict=True)
        for match, verdict in zip(cases, row, strict=True)
        if matches(match, request) is not verdict
    ]
    assert not wrong, wrong[0]
    # Every kind of condition has been seen to hold and not to hold.
    seen: Counter[tuple[type, StringKind | None, bool]] = Counter()
    for row in verdicts:
        for match, verdict in zip(cases, row, strict=True):
            if not parts_of(match):
                value = getattr(match, "value", None)
                seen[type(match), value.kind if value else None, verdict] += 1
    for subject in (Header, BaggageMember, TracestateMember, Query, Path):
        for kind in StringKind:
            assert seen[subject, kind, True], (subject, kind, "never held")
            assert seen[subject, kind, False], (subject, kind, "always held")


async def test_of_two_policies_that_match_the_first_by_name_is_reported(ports, tmp_path):
    anyone, someone = parse_match("path ^/"), parse_match("header x-a=1")
    filters = [
        {"b": anyone, "a": someone},
        {"a": anyone, "b": someone},
        {"0010.x": someone, "0009.y": anyone},
        {f"{index:04}.s": anyone if index != 1 else someone for index in reversed(range(12))},
        {f"{index:04}.s": someone if index < 7 else anyone for index in range(12)},
    ]
    async with judge(filters, ports(), tmp_path) as envoy:
        with_header, without = await envoy.ask([Request(headers=(("x-a", "1"),)), Request()])
    assert with_header == ["a", "a", "0009.y", "0000.s", "0000.s"]
    assert without == ["b", "a", "0009.y", "0000.s", "0007.s"]


async def test_the_largest_that_are_accepted_fit_into_envoy(ports, tmp_path):
    """What the reader takes Envoy must take, or it refuses the whole resource."""
    long = "[^ace]" * 40
    largest = [
        {"baggage": {"key": "k" * 256, "exact": "(" * 1024}},
        {"baggage": {"key": "!" * 256, "contains": "*" * 1024}},
        {"query": {"name": "k" * 256, "regex": f"(?:{long}){{9}}"}},
        {"header": {"name": "x", "regex": "(?:[^a]{30}){30}"}},
        {"tracestate": {"key": "k", "regex": "(?:a|bc|[d-z]?){600}"}},
        {"baggage": {"key": "k", "regex": ","}},
        {"path": {"regex": "(?i)/x{0,1000}"}},
        {"baggage": {"key": "k" * 256, "regex": "[acegikmoqsuwy]{650}"}},
        {"baggage": {"key": "k", "regex": r"(?:\W?[^ac]?[^eg]?){350}"}},
        {"query": {"name": "k", "regex": r"(?i)(?:[a-z]*x?y+){600}"}},
    ]
    cases = [match_from_json(match) for match in largest]
    cases += [And(()), Or(()), Header("x"), TracestateMember("k"), Query("k")]
    async with judge([{"yes": match} for match in cases], ports(), tmp_path) as envoy:
        request = Request(path="/XXX", headers=(("baggage", "k=,"),))
        [answer] = await envoy.ask([request])
    assert [verdict == "yes" for verdict in answer] == [matches(match, request) for match in cases]
    assert Counter(answer) == {"": 12, "yes": 3}
