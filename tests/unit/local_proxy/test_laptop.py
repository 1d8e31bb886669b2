"""Lines of the gateway's access log, and what the user is told of them."""

from __future__ import annotations

import pytest

from local_proxy.laptop import connection_seen
from local_proxy.messages import connection_text


def line(**fields):
    answer = fields.pop("headers", {":status": "200"})
    headers = [{"key": key, "value": value} for key, value in answer.items()]
    return {"gateway": "10.96.1.2:80", "name": None, "sent": 100, "received": 2500, "durationMs": 7, "flags": "-"} | {
        "answer": {"headers": headers} if answer else None, **fields
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "<- 10.96.1.2:80 100 B out, 2.5 kB in, 7 ms"),
        ({"name": "inventory"}, "<- inventory:80 (10.96.1.2) 100 B out, 2.5 kB in, 7 ms"),
        ({"gateway": "inventory:80", "name": "inventory"}, "<- inventory:80 100 B out, 2.5 kB in, 7 ms"),
        ({"gateway": "[fd00::1]:80", "name": "v6"}, "<- v6:80 ([fd00::1]) 100 B out, 2.5 kB in, 7 ms"),
        ({"sent": 12_000_000, "received": 0}, "<- 10.96.1.2:80 12 MB out, 0 B in, 7 ms"),
        ({"headers": {":status": "403", "x-hairpin-refused": "use staging"}}, "<- 10.96.1.2:80 (refused: use staging)"),
        ({"headers": {":status": "403"}}, "<- 10.96.1.2:80 (refused: the agent does not know the session)"),
        ({"headers": {":status": "503"}}, "<- 10.96.1.2:80 (refused: the agent could not connect (503))"),
        ({"headers": {}, "flags": "UF"}, "<- 10.96.1.2:80 (refused: the agent is not reached (UF))"),
    ],
)
def test_a_connections_line(fields, text):
    assert connection_text(connection_seen(line(**fields))) == text


@pytest.mark.parametrize("answer", [None, "-", {"headers": None}, {"headers": ["x", {}]}, {}])
def test_a_line_whose_answer_is_missing_or_odd_is_read(answer):
    seen = connection_seen({"gateway": None, "answer": answer})
    assert (seen.authority, seen.name, seen.sent, seen.refused) == ("", "", 0, "")
