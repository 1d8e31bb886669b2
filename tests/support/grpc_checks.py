"""Checks over gRPC, on JSON in raw bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from tests.support import payload
from tests.support.checks import SEED, Address, Headers, check_who, protocol

SERVICE = "/hairpin.test.Echo/"
MESSAGES = 20


def channel(address: Address, authority: str) -> Any:
    """A `grpc.aio.Channel` with a connection of its own: no proxy, no name to look up, nothing shared.

    Any, because the stubs want a serializer to know the messages' type, and ours are bytes.
    """
    options = [
        ("grpc.default_authority", authority),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(f"ipv4:{address[0]}:{address[1]}", options=options)


def _check_trailers(trailers: Iterable[tuple[str, str | bytes]] | None, expected_who: str) -> None:
    who = dict(trailers or ()).get("x-who")
    assert who == expected_who, f"the trailer x-who reads {who!r}, not {expected_who!r}"


def _read(answer: Any) -> Mapping[str, Any]:
    assert isinstance(answer, bytes), "the stream ended before its last answer"
    found: dict[str, Any] = json.loads(answer)
    return found


@protocol
async def grpc_unary(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """One message each way, and trailers."""
    async with channel(address, authority) as connection:
        call = connection.unary_unary(f"{SERVICE}Unary")(b'{"message": "hello"}', metadata=tuple(headers.items()))
        answer = _read(await call)
        check_who(answer, expected_who, headers)
        assert answer["message"] == "hello", f"hello came back as {answer['message']!r}"
        _check_trailers(await call.trailing_metadata(), expected_who)


@protocol
async def grpc_server_stream(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """One message there, twenty back, in order, and trailers."""
    async with channel(address, authority) as connection:
        request = json.dumps({"n": MESSAGES}).encode()
        call = connection.unary_stream(f"{SERVICE}ServerStream")(request, metadata=tuple(headers.items()))
        answers = [_read(answer) async for answer in call]
        for answer in answers:
            check_who(answer, expected_who, headers)
        numbers = [answer["n"] for answer in answers]
        assert numbers == list(range(MESSAGES)), f"the answers came as {numbers}"
        _check_trailers(await call.trailing_metadata(), expected_who)


@protocol
async def grpc_client_stream(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """Twenty messages of 64 KiB there, their count and checksum back."""
    size = MESSAGES * payload.BLOCK_BYTES
    async with channel(address, authority) as connection:
        call = connection.stream_unary(f"{SERVICE}ClientStream")(
            payload.blocks(SEED, size), metadata=tuple(headers.items())
        )
        answer = _read(await call)
        check_who(answer, expected_who, headers)
        assert answer["count"] == MESSAGES, f"{answer['count']} of {MESSAGES} messages arrived"
        assert answer["sha256"] == payload.sha256(SEED, size), "the messages that arrived are not those that were sent"
        _check_trailers(await call.trailing_metadata(), expected_who)


@protocol
async def grpc_bidi(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """Live, both ways on one stream: each answer is here before the next message is sent."""
    async with channel(address, authority) as connection:
        call = connection.stream_stream(f"{SERVICE}Bidi")(metadata=tuple(headers.items()))
        for number in range(MESSAGES):
            await call.write(json.dumps({"message": f"message {number}"}).encode())
            answer = _read(await call.read())
            check_who(answer, expected_who, headers)
            found = (answer["n"], answer["message"])
            assert found == (number, f"message {number}"), f"message {number} came back as {found}"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF, "an answer came that nobody asked for"
        _check_trailers(await call.trailing_metadata(), expected_who)


@protocol
async def grpc_error(address: Address, authority: str, headers: Headers, expected_who: str) -> None:
    """An error keeps its code, its message and its trailers."""
    code, message = grpc.StatusCode.FAILED_PRECONDITION, "the cart is empty: 0 % of it"
    async with channel(address, authority) as connection:
        request = json.dumps({"code": code.value[0], "message": message}).encode()
        call = connection.unary_unary(f"{SERVICE}Fail")(request, metadata=tuple(headers.items()))
        assert await call.code() == code, f"{await call.code()}: {await call.details()} in place of {code}"
        assert await call.details() == message, f"the message came as {await call.details()!r}"
        _check_trailers(await call.trailing_metadata(), expected_who)
