"""What the load's client makes of the bytes that it gets, and what becomes of a request that nobody answers."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bench.chaos import load
from bench.chaos.load import CONNECTIONS, Load, exchange
from bench.chaos.records import Kind, Record

HEAD = b"HTTP/1.1 200 OK\r\nX-Who: laptop\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


async def made_of(data: bytes) -> tuple[Record, bool]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    record = Record(kind=Kind.GET, path="/", sent=0)
    return record, await exchange(reader, record)


@pytest.mark.parametrize(
    "data", [HEAD + b"content-length: 3\r\n\r\nok\n", CHUNKED + b"3\r\nok\n\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"]
)
async def test_a_whole_answer(data):
    record, goes_on = await made_of(data)
    assert (record.status, record.who, record.error) == (200, "laptop", "")
    assert not record.refused and not record.cut and goes_on and 0 < record.begun <= record.ended


async def test_a_connection_that_is_to_be_closed_is_used_no_more():
    record, goes_on = await made_of(HEAD + b"content-length: 0\r\nConnection: close\r\n\r\n")
    assert not record.refused and not record.cut and not goes_on


async def test_no_byte_is_a_refusal():
    record, goes_on = await made_of(b"")
    assert record.refused and record.begun is None and not goes_on and record.ended > 0


async def test_an_error_of_the_mesh_is_a_refusal_though_bytes_came():
    record, goes_on = await made_of(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
    assert record.refused and record.begun is not None and goes_on


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"content-length: 30\r\n\r\nok\n",
        CHUNKED + b"3\r\nok\n\r\n",
        CHUNKED + b"3\r\no",
        CHUNKED + b"3\r\nok\n\r\n0\r\n",
    ],
)
async def test_an_answer_without_its_end_is_cut(data):
    record, goes_on = await made_of(data)
    assert record.cut and not record.refused and not goes_on


async def test_a_head_without_its_end_is_a_refusal():
    record, goes_on = await made_of(HEAD)
    assert record.refused and record.error and not goes_on


def test_sixteen_connections_of_every_kind():
    assert len(CONNECTIONS) == 16
    assert {kind for kind, _ in CONNECTIONS} == set(Kind)


@contextlib.asynccontextmanager
async def served(answer: bytes):
    """A server that gives each request this answer, and a load on it."""

    async def handle(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2000 if head.startswith(b"POST") else 0)
                writer.write(answer)
        writer.close()

    async def seen() -> str:
        return "the sidecar has it"

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield Load(
            lambda: asyncio.open_connection("127.0.0.1", port),
            service="target",
            environment="alice",
            bystander="bob",
            under_way=seen,
        )


async def test_every_connections_requests_are_recorded():
    async with served(HEAD + b"content-length: 3\r\n\r\nok\n") as requests:
        async with requests.running():
            assert await requests.until(lambda records: {r.kind for r in records} == set(Kind), 30)
        assert requests.stuck == ""
        assert all(not r.refused and r.who == "laptop" for r in requests.records)
        assert len({r.key for r in requests.records if r.kind is Kind.POST}) > 1


async def test_a_request_that_nobody_answers_is_looked_for(monkeypatch):
    for name, seconds in {"STUCK_SECONDS": 0.1, "LOOK_SECONDS": 0.05, "TIMEOUT_SECONDS": 1.0}.items():
        monkeypatch.setattr(load, name, seconds)
    async with served(b"") as requests:
        async with requests.running():
            assert await requests.until(lambda records: len(records) >= len(CONNECTIONS), 30)
        assert requests.stuck.startswith("no answer 0.1 s after ")
        assert requests.stuck.endswith("was sent: the sidecar has it")
        assert all(r.refused and r.error.startswith("TimeoutError") for r in requests.records)
