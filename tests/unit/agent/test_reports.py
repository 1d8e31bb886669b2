from __future__ import annotations

import asyncio
import json

from agent.reports import Reports


def tunnel(event: str, session: str, socket: int) -> bytes:
    return json.dumps({"event": event, "session": session, "socket": socket, "reason": None}).encode()


def feed(reports: Reports, *lines: bytes) -> None:
    for line in lines:
        reports.on_line(line)


def test_a_session_is_up_while_any_of_its_tunnels_is():
    reports = Reports()
    feed(reports, tunnel("tunnel_setup", "a", 1), tunnel("tunnel_setup", "a", 2), tunnel("tunnel_setup", "b", 3))
    assert reports.tunnels == {"a", "b"}
    feed(reports, tunnel("tunnel_closed", "a", 1))
    assert reports.tunnels == {"a", "b"}
    feed(reports, tunnel("tunnel_closed", "a", 2))
    assert reports.tunnels == {"b"}


def test_the_close_of_an_unknown_tunnel_and_foreign_lines_change_nothing():
    reports = Reports()
    feed(reports, tunnel("tunnel_closed", "a", 1), b"", b"hello", b"3", b"[]", b'{"event":"tunnel_setup"}')
    assert reports.tunnels == frozenset()


def test_a_gauge_is_believed_at_its_second_contradiction():
    reports = Reports()
    feed(reports, tunnel("tunnel_setup", "lost", 1))
    gauges = {"tunnel.worker_0.node.missed": 1, "tunnel.worker_0.node.lost": 0}
    reports.reconcile(gauges)
    assert reports.tunnels == {"lost"}
    reports.reconcile(gauges)
    assert reports.tunnels == {"missed"}
    feed(reports, tunnel("tunnel_closed", "missed", 9))
    assert reports.tunnels == frozenset()


def test_a_line_between_two_looks_settles_the_difference():
    reports = Reports()
    gauges = {"tunnel.worker_0.node.a": 1}
    reports.reconcile(gauges)
    feed(reports, tunnel("tunnel_setup", "a", 1))
    reports.reconcile(gauges)
    feed(reports, tunnel("tunnel_closed", "a", 1))
    assert reports.tunnels == frozenset()


async def next_line(stream) -> object:
    async with asyncio.timeout(3):
        return json.loads(await anext(stream))


async def test_a_stream_begins_with_the_full_state_and_goes_on_with_changes():
    reports = Reports()
    feed(reports, tunnel("tunnel_setup", "b", 1), tunnel("tunnel_setup", "a", 2))
    stream = reports.stream()
    assert await next_line(stream) == {"tunnels": ["a", "b"]}
    feed(reports, tunnel("tunnel_closed", "b", 1), b'{"session":"a","method":"GET"}')
    assert await next_line(stream) == {"tunnels": ["a"]}
    assert await next_line(stream) == {"requests": [{"session": "a", "method": "GET"}]}
    reports.reset()
    assert await next_line(stream) == {"tunnels": []}
    await stream.aclose()
    # What the control plane missed between two streams, the next one says first.
    feed(reports, tunnel("tunnel_setup", "c", 1))
    assert await next_line(reports.stream()) == {"tunnels": ["c"]}


async def test_requests_that_nobody_takes_are_dropped_from_the_oldest():
    reports = Reports()
    for number in range(1500):
        reports.on_line(json.dumps({"session": "a", "path": str(number)}).encode())
    stream = reports.stream()
    await next_line(stream)
    requests = (await next_line(stream))["requests"]
    assert [requests[0]["path"], requests[-1]["path"], len(requests)] == ["500", "1499", 1000]
