"""Checks over HTTP/1.1: plain exchanges, WebSocket, server-sent events, large bodies."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support import payload
from tests.support.checks import (
    LARGE_BYTES,
    SEED,
    Address,
    Headers,
    check_download,
    check_payload,
    check_version,
    check_who,
    protocol,
)


@asynccontextmanager
async def http1_session(address: Address, authority: str, headers: Headers) -> AsyncIterator[aiohttp.ClientSession]:
    """A client for one address; each request asks for the authority and bears the headers."""
    async with aiohttp.ClientSession(
        f"http://{address[0]}:{address[1]}",
        headers={"host": authority, **headers},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield session


async def http1_json(session: aiohttp.ClientSession, method: str, path: str, data: Any = None) -> Any:
    """One exchange that must end with a 200 and JSON."""
    async with session.request(method, path, data=data) as response:
        text = await response.text()
        assert response.status == 200, f"{method} {path}: status {response.status}: {text[:200]!r}"
        return json.loads(text)


@protocol
async def http1(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """GET, then POST with a body, then a status that is an error."""
    async with http1_session(address, authority, headers) as session:
        answer = await http1_json(session, "GET", "/orders?page=2")
        check_who(answer, expected_who, headers)
        check_version(answer, "1.1")
        assert answer["path"] == "/orders?page=2", f"asked for /orders?page=2, {answer['path']} arrived"
        answer = await http1_json(session, "POST", "/orders", b"".join(payload.blocks(SEED, 1000)))
        check_who(answer, expected_who, headers)
        check_payload(answer, 1000)
        async with session.get("/status?code=404") as response:
            assert response.status == 404, f"status {response.status} in place of 404"
            assert response.headers.get("x-who") == expected_who, f"the 404 is {response.headers.get('x-who')!r}'s"


@protocol
async def websocket(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """Who greets, then text and bytes come back, each before the next is sent, and the close is clean."""
    async with (
        http1_session(address, authority, headers) as session,
        session.ws_connect("/ws", max_msg_size=0) as socket,
    ):
        check_who(await socket.receive_json(), expected_who, headers)
        for number in range(5):
            await socket.send_str(f"message {number}")
            assert (answer := await socket.receive_str()) == f"message {number}", f"message {number} became {answer!r}"
        block = next(payload.blocks(SEED, payload.BLOCK_BYTES))
        await socket.send_bytes(block)
        assert await socket.receive_bytes() == block, f"{len(block)} bytes came back changed"
        await socket.close()
        assert socket.close_code == 1000, f"closed with {socket.close_code}, not with 1000"


@protocol
async def sse(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """Three events, live: the server waits with each until the one before it has been seen here."""
    gate = uuid.uuid4().hex
    async with (
        http1_session(address, authority, headers) as session,
        session.get(f"/sse?n=3&gate={gate}", headers={"accept": "text/event-stream"}) as response,
    ):
        assert response.status == 200, f"status {response.status}"
        for number in range(3):
            event = await _next_event(response.content)
            check_who(event, expected_who, headers)
            assert event["n"] == number, f"event {event['n']} in place of {number}"
            await http1_json(session, "GET", f"/release?key={gate}.{number + 1}")
        rest = await response.content.read()
        assert not rest.strip(), f"after the third event came {rest!r}"


async def _next_event(content: aiohttp.StreamReader) -> Any:
    while line := await content.readline():
        if line.startswith(b"data: "):
            return json.loads(line.removeprefix(b"data: "))
    raise AssertionError("the stream ended before its last event")


@protocol
async def upload(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """100 MB up, of a length that is announced."""
    async with http1_session(address, authority, {**headers, "content-length": str(LARGE_BYTES)}) as session:
        answer = await http1_json(session, "POST", "/upload", _large())
    check_who(answer, expected_who, headers)
    check_payload(answer, LARGE_BYTES)


@protocol
async def upload_chunked(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """100 MB up, in chunks."""
    async with http1_session(address, authority, headers) as session:
        answer = await http1_json(session, "POST", "/upload", _large())
    check_who(answer, expected_who, headers)
    check_payload(answer, LARGE_BYTES)


async def _large() -> AsyncIterator[bytes]:
    for block in payload.blocks(SEED, LARGE_BYTES):
        yield block


@protocol
async def download(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """100 MB down."""
    async with (
        http1_session(address, authority, headers) as session,
        session.get(f"/download?bytes={LARGE_BYTES}&seed={SEED}") as response,
    ):
        body = response.content.iter_chunked(payload.BLOCK_BYTES)
        await check_download(response.status, response.headers.get("x-who"), body, expected_who)
