"""The echo server's own promises, those that no protocol check covers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from tests.support import h2client, payload
from tests.support.echo_process import ROOT, EchoProcess, echo_process
from tests.support.grpc_checks import SERVICE, channel
from tests.support.protocols import http1_json, http1_session, http2_json


@pytest.fixture(scope="module")
async def echo() -> AsyncIterator[EchoProcess]:
    async with echo_process("the echo") as server:
        yield server


@pytest.fixture(scope="module")
async def session(echo: EchoProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with http1_session(echo.http, "shop", {}) as client:
        yield client


async def get(session: aiohttp.ClientSession, path: str) -> Any:
    return await http1_json(session, "GET", path)


async def test_a_held_request_waits_until_it_is_released(session: aiohttp.ClientSession) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(get(session, "/hold?key=breakpoint"))
        assert (await get(session, "/held?key=breakpoint&n=1"))["held"] == 1
        assert (await get(session, "/"))["who"] == "the echo"
        assert not waiting.done()
        assert (await get(session, "/release?key=breakpoint"))["released"] == 1
    assert waiting.result()["path"] == "/hold?key=breakpoint"
    assert (await get(session, "/held?key=breakpoint"))["held"] == 0


async def test_a_client_that_leaves_holds_nothing(session: aiohttp.ClientSession) -> None:
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(get(session, "/hold?key=left"))
        await get(session, "/held?key=left&n=1")
        leaving.cancel()
    async with asyncio.timeout(20):
        while (await get(session, "/held?key=left"))["held"]:
            await asyncio.sleep(0.01)


async def test_requests_are_counted_by_their_key_over_all_protocols(
    session: aiohttp.ClientSession, echo: EchoProcess
) -> None:
    headers = {"x-request-key": "order-1"}
    async with session.post("/orders", headers=headers) as response:
        assert response.status == 200
    async with session.ws_connect("/ws", headers=headers):
        pass
    async with channel(echo.grpc, "shop") as connection:
        await connection.unary_unary(f"{SERVICE}Unary")(b'{"message": ""}', metadata=(("x-request-key", "order-1"),))

    assert (await get(session, "/count?key=order-1"))["count"] == 3
    assert (await get(session, "/count?key=order-2"))["count"] == 0


async def test_a_request_counts_before_its_body_has_come(session: aiohttp.ClientSession) -> None:
    counted = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await counted.wait()

    async def upload() -> Any:
        async with session.post("/upload", data=body(), headers={"x-request-key": "slow"}) as response:
            return await response.json()

    async with asyncio.TaskGroup() as group:
        uploading = group.create_task(upload())
        async with asyncio.timeout(20):
            while not (await get(session, "/count?key=slow"))["count"]:
                await asyncio.sleep(0.01)
        assert not uploading.done()
        counted.set()
    assert uploading.result()["length"] == 5


async def test_a_status_is_answered_as_asked(session: aiohttp.ClientSession) -> None:
    for code in (204, 418, 503):
        async with session.get(f"/status?code={code}") as response:
            assert response.status == code
            assert response.headers["x-who"] == "the echo"


async def test_a_stream_has_a_line_per_interval(session: aiohttp.ClientSession) -> None:
    async with session.get("/stream?seconds=0.05&interval=10") as response:
        assert await response.text() == "".join(f"the echo {number}\n" for number in range(5))


async def test_the_events_end_when_the_client_leaves(session: aiohttp.ClientSession) -> None:
    async with session.get("/sse?n=0&interval=1&gate=endless") as response:
        assert await response.content.readline() == b"id: 0\n"
        assert (await get(session, "/held?key=endless.1&n=1"))["held"] == 1
        response.close()
    async with asyncio.timeout(20):
        while (await get(session, "/held?key=endless.1"))["held"]:
            await asyncio.sleep(0.01)


async def test_a_delay_is_over_after_it(session: aiohttp.ClientSession) -> None:
    assert (await get(session, "/delay?ms=1"))["path"] == "/delay?ms=1"


async def test_a_connection_is_kept_beyond_a_thousand_requests(echo: EchoProcess) -> None:
    reader, writer = await asyncio.open_connection(*echo.http)
    for _ in range(1100):
        writer.write(b"GET /status?code=204 HTTP/1.1\r\nhost: shop\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204")
        assert b"connection: close" not in head.lower()
    writer.close()


async def test_a_request_given_up_leaves_the_others_on_its_connection_alone(echo: EchoProcess) -> None:
    async with h2client.connect(echo.http) as connection:
        held = connection.request("GET", "shop", "/hold?key=others", {})
        for _ in range(10):
            up = connection.request("POST", "shop", "/upload", {}, end=False)
            await up.send(next(payload.blocks(1, 60_000)))
            up.reset()
            down = connection.request("GET", "shop", "/download?bytes=10000000", {})
            assert await down.response() == 200
            down.reset()
        assert (await http2_json(connection.request("GET", "shop", "/release?key=others", {})))["released"] == 1
        assert (await http2_json(held))["who"] == "the echo"


async def test_a_grpc_answer_says_who(echo: EchoProcess) -> None:
    async with channel(echo.grpc, "shop") as connection:
        answer = json.loads(await connection.unary_unary(f"{SERVICE}Unary")(b'{"message": "hello"}'))

    assert (answer["who"], answer["message"]) == ("the echo", "hello")


async def test_an_unknown_grpc_method_is_unimplemented(echo: EchoProcess) -> None:
    async with channel(echo.grpc, "shop") as connection:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await connection.unary_unary(f"{SERVICE}Nothing")(b"{}")

    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("tunnel", ["", "&tunnel=1"], ids=["absolute form", "CONNECT"])
async def test_a_call_leaves_by_the_proxy_of_the_environment(tunnel: str, echo: EchoProcess) -> None:
    seen: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one request; as any server does with the absolute form, the echo answers it whatever the host."""
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head.splitlines()[0])
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
        up_reader, up_writer = await asyncio.open_connection(*echo.http)
        up_writer.write(head.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) if b"close" not in head else head)
        while data := await up_reader.read(65536):
            writer.write(data)
        up_writer.close()
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        variables = {"http_proxy": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "no_proxy": ""}
        async with (
            echo_process("the caller", environment=variables) as caller,
            http1_session(caller.http, "caller", {"x-env": "alice", "x-other": "1"}) as session,
        ):
            answer = await get(session, f"/call?url=http://inventory/items{tunnel}")

    assert seen == [b"CONNECT inventory:80 HTTP/1.1" if tunnel else b"GET http://inventory/items HTTP/1.1"]
    assert (answer["who"], answer["status"]) == ("the caller", 200)
    assert answer["answer"]["who"] == "the echo"
    assert answer["answer"]["headers"]["host"] == "inventory"
    assert answer["answer"]["headers"]["x-env"] == "alice"
    assert "x-other" not in answer["answer"]["headers"]


@pytest.mark.parametrize("tunnel", ["", "&tunnel=1"], ids=["absolute form", "CONNECT"])
async def test_a_call_that_gets_no_answer_says_why(tunnel: str) -> None:
    async with (
        echo_process("the caller", environment={"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}) as caller,
        http1_session(caller.http, "caller", {}) as session,
        session.get(f"/call?url=http://inventory/{tunnel}") as response,
    ):
        answer = await response.json()

    assert response.status == 502
    assert answer["error"].startswith("http://inventory/: ")


async def test_it_ends_on_sigterm_whatever_waits() -> None:
    async with (
        echo_process("the echo") as server,
        http1_session(server.http, "shop", {}) as client,
        channel(server.grpc, "shop") as connection,
    ):
        stream = connection.stream_stream(f"{SERVICE}Bidi")()
        await stream.write(b'{"message": "first"}')
        await stream.read()

        async def wait_for_ever() -> None:
            with pytest.raises(aiohttp.ClientError):
                await client.get("/hold?key=forever")

        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_ever())
            await get(client, "/held?key=forever&n=1")
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await server.process.wait() == 0
        stream.cancel()


def test_a_taken_port_is_an_error(echo: EchoProcess) -> None:
    command = [sys.executable, "-m", "tests.support.echo", "--name", "second"]
    for option, port in (("--port", echo.http[1]), ("--grpc-port", echo.grpc[1])):
        done = subprocess.run([*command, option, str(port)], cwd=ROOT, capture_output=True, check=False, timeout=30)
        assert done.returncode != 0
        assert b"listening" not in done.stdout


def test_a_payload_depends_on_its_seed_and_its_size_is_exact() -> None:
    whole = b"".join(payload.blocks(1, 200_000))

    assert len(whole) == 200_000
    assert b"".join(payload.blocks(1, 70_001)) == whole[:70_001]
    assert payload.sha256(1, 1000) != payload.sha256(2, 1000)
    assert len(set(payload.blocks(1, 10 * payload.BLOCK_BYTES))) == 10
