"""What the checks of all protocols have in common: their registry, and what they assert of an answer."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc.aio

from tests.support import payload

Address = tuple[str, int]
Headers = Mapping[str, str]
Check = Callable[[Address, str, Headers, str], Awaitable[None]]

LARGE_BYTES = 100_000_000
SEED = 7
PATIENCE_SECONDS = 50
"""How long a check may take; shorter than the time limit of a test, so that the check's own message is seen."""

PROTOCOLS: dict[str, Check] = {}


def protocol(check: Check) -> Check:
    """Registers a check, and turns whatever goes wrong in it into one readable AssertionError."""

    @functools.wraps(check)
    async def readable(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await check(address, authority, headers, expected_who)
        except Exception as error:
            where = f"{check.__name__} to {authority} at {address[0]}:{address[1]} with {dict(headers)}"
            raise AssertionError(f"{where}: {'; '.join(_reasons(error))}") from error

    PROTOCOLS[check.__name__] = readable
    return readable


def _reasons(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [reason for part in error.exceptions for reason in _reasons(part)]
    if isinstance(error, TimeoutError):
        return [f"no end within {PATIENCE_SECONDS} s"]
    if isinstance(error, grpc.aio.AioRpcError):
        return [f"{error.code()}: {error.details()}"]
    return [str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"]


def check_who(answer: Mapping[str, Any], expected_who: str, headers: Headers) -> None:
    """The right server answered, and the headers had reached it."""
    assert answer["who"] == expected_who, f"answered by {answer['who']!r}, not by {expected_who!r}"
    for name, value in headers.items():
        arrived = answer["headers"].get(name)
        assert arrived == value, f"header {name}: {value} arrived as {arrived!r}"


def check_version(answer: Mapping[str, Any], version: str) -> None:
    """The server was asked in the version of HTTP that the client speaks."""
    assert answer["protocol"] == version, f"HTTP/{version} here became HTTP/{answer['protocol']} at the server"


def check_payload(answer: Mapping[str, Any], size: int) -> None:
    """The body that `payload.blocks(SEED, size)` makes arrived whole."""
    assert answer["length"] == size, f"{answer['length']} of {size} bytes arrived"
    assert answer["sha256"] == payload.sha256(SEED, size), "the bytes that arrived are not those that were sent"


async def check_download(status: int, who: str | None, body: AsyncIterator[bytes], expected_who: str) -> None:
    """A response is the large body, whole, from the right server."""
    assert status == 200, f"status {status}"
    assert who == expected_who, f"answered by {who!r}, not by {expected_who!r}"
    digest, size = hashlib.sha256(), 0
    async for piece in body:
        digest.update(piece)
        size += len(piece)
    check_payload({"length": size, "sha256": digest.hexdigest()}, LARGE_BYTES)
