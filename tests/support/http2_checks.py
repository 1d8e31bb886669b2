"""Checks over HTTP/2 by prior knowledge."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support import h2client, payload
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

STREAMS = 10


async def http2_json(stream: h2client.Stream) -> Any:
    """The response to a request that has been sent; it must be a 200 and JSON."""
    status = await stream.response()
    text = b"".join([piece async for piece in stream.body()])
    assert status == 200, f"status {status}: {text[:200]!r}"
    return json.loads(text)


@protocol
async def http2(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """Ten requests at once on one connection, half of them with a body, then a status that is an error."""

    async def one(number: int) -> None:
        size = 1000 * (number % 2)
        request = connection.request("POST" if size else "GET", authority, f"/orders/{number}", headers, end=not size)
        if size:
            await h2client.send_all(request, payload.blocks(SEED, size))
        answer = await http2_json(request)
        check_who(answer, expected_who, headers)
        check_version(answer, "2")
        check_payload(answer, size)
        assert answer["path"] == f"/orders/{number}", f"asked for /orders/{number}, {answer['path']} arrived"

    async with h2client.connect(address) as connection:
        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                group.create_task(one(number))
        refused = connection.request("GET", authority, "/status?code=404", headers)
        status = await refused.response()
        assert status == 404, f"status {status} in place of 404"
        assert refused.headers.get("x-who") == expected_who, f"the 404 is {refused.headers.get('x-who')!r}'s"


@protocol
async def http2_upload(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """100 MB up."""
    async with h2client.connect(address) as connection:
        request = connection.request("POST", authority, "/upload", headers, end=False)
        await h2client.send_all(request, payload.blocks(SEED, LARGE_BYTES))
        answer = await http2_json(request)
    check_who(answer, expected_who, headers)
    check_payload(answer, LARGE_BYTES)


@protocol
async def http2_download(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """100 MB down."""
    async with h2client.connect(address) as connection:
        request = connection.request("GET", authority, f"/download?bytes={LARGE_BYTES}&seed={SEED}", headers)
        status = await request.response()
        await check_download(status, request.headers.get("x-who"), request.body(), expected_who)
