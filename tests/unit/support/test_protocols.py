"""The checks and the echo server against each other, on loopback: what holds here can be held against a mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support import checks, payload
from tests.support.checks import SEED
from tests.support.echo_process import EchoProcess, echo_process
from tests.support.protocols import GRPC, LARGE, PROTOCOLS, Address, http1, sse

HEADERS = {"x-env": "alice", "baggage": "env=alice,user=42"}


@pytest.fixture(scope="module")
async def echo() -> AsyncIterator[EchoProcess]:
    async with echo_process("the echo") as server:
        yield server


def address_for(name: str, server: EchoProcess) -> Address:
    return server.grpc if name in GRPC else server.http


@pytest.mark.parametrize("name", PROTOCOLS)
async def test_each_protocol_passes(name: str, echo: EchoProcess) -> None:
    await PROTOCOLS[name](address_for(name, echo), "shop", HEADERS, "the echo")


@pytest.mark.parametrize("name", PROTOCOLS)
async def test_an_answer_of_someone_else_fails_and_names_them(name: str, echo: EchoProcess) -> None:
    with pytest.raises(
        AssertionError, match=rf"^{name} to shop at 127.0.0.1:\d+ with .*'x-env': 'alice'.*'the echo'.*'bob'"
    ):
        await PROTOCOLS[name](address_for(name, echo), "shop", HEADERS, "bob")


@pytest.mark.parametrize("name", PROTOCOLS)
async def test_nobody_there_fails_readably(name: str) -> None:
    with pytest.raises(AssertionError, match=rf"^{name} to shop at 127.0.0.1:1 with .*(?i:connect|refused)"):
        await PROTOCOLS[name](("127.0.0.1", 1), "shop", {}, "the echo")


@pytest.mark.parametrize("name", sorted(PROTOCOLS.keys() - GRPC))
async def test_a_connection_that_breaks_fails_readably(name: str) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        with pytest.raises(AssertionError, match=rf"^{name} to shop at "):
            await PROTOCOLS[name](address, "shop", {}, "the echo")


@asynccontextmanager
async def relay(
    to: Address, *, upwards: Callable[[bytes], bytes] = bytes, hold_answers: bool = False
) -> AsyncIterator[Address]:
    """A middle box on TCP that changes what goes up, or keeps what comes down until there is no more of it."""

    async def up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(upwards(data))
        writer.close()

    async def down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(-1 if hold_answers else 65536):
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*to)
        async with asyncio.TaskGroup() as group:
            group.create_task(up(reader, up_writer))
            group.create_task(down(up_reader, writer))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


async def test_a_header_changed_on_the_way_fails(echo: EchoProcess) -> None:
    async with relay(echo.http, upwards=lambda data: data.replace(b"x-env: alice", b"x-env: carol")) as address:
        with pytest.raises(AssertionError, match="header x-env: alice arrived as 'carol'"):
            await http1(address, "shop", HEADERS, "the echo")


async def test_a_body_changed_on_the_way_fails(echo: EchoProcess) -> None:
    start = next(payload.blocks(SEED, 8))
    async with relay(echo.http, upwards=lambda data: data.replace(start, start[::-1])) as address:
        with pytest.raises(AssertionError, match="the bytes that arrived are not those that were sent"):
            await http1(address, "shop", HEADERS, "the echo")


async def test_events_kept_until_the_end_fail(echo: EchoProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PATIENCE_SECONDS", 0.5)
    async with relay(echo.http, hold_answers=True) as address:
        with pytest.raises(AssertionError, match=r"no end within 0\.5 s"):
            await sse(address, "shop", HEADERS, "the echo")


def test_the_large_ones_are_known() -> None:
    assert PROTOCOLS.keys() >= LARGE
    assert {name for name in PROTOCOLS if "load" in name} == LARGE
