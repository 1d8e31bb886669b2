"""The HTTP side of the echo server: an ASGI application for HTTP/1.1, HTTP/2 and WebSocket.

A request's body is always read to its end before it is answered: hypercorn closes an HTTP/2 connection, with every other
request on it, when more of a body arrives for a request that is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from tests.support import payload
from tests.support.outgoing import OutgoingError, call

Message = dict[str, Any]
PASSED_ON = ("x-env", "baggage", "traceparent")
REQUEST_KEY = "x-request-key"


class Shared:
    """What the requests of one server have in common, over all its protocols."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.received: Counter[str] = Counter()
        """How many requests bore each `x-request-key`, counted when their headers arrive."""
        self._held: Counter[str] = Counter()
        self._released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._changed = asyncio.Condition()

    async def hold(self, key: str) -> None:
        """Waits until the key is released; a key stays released."""
        await self._count_held(key, 1)
        try:
            await self._released[key].wait()
        finally:
            await self._count_held(key, -1)

    def release(self, key: str) -> int:
        self._released[key].set()
        return self._held[key]

    async def held(self, key: str, at_least: int) -> int:
        """How many wait at the key, once there are at least that many."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held[key] >= at_least)
            return self._held[key]

    async def _count_held(self, key: str, difference: int) -> None:
        async with self._changed:
            self._held[key] += difference
            self._changed.notify_all()


class Exchange:
    """One HTTP request and its response."""

    def __init__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        shared: Shared,
    ) -> None:
        self.scope = scope
        self.shared = shared
        self.headers = joined(scope["headers"])
        self.query = dict(parse_qsl(scope["query_string"].decode()))
        self.length = 0
        self.sha256 = ""
        self._receive = receive
        self._send = send

    def number(self, name: str, default: float) -> float:
        return float(self.query.get(name, default))

    async def read(self) -> None:
        """Reads the body, keeping its length and checksum alone."""
        digest = hashlib.sha256()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client left before the end of its request")
            self.length += len(message["body"])
            digest.update(message["body"])
            more = message["more_body"]
        self.sha256 = digest.hexdigest()

    async def disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, content_type: str, length: int | None = None) -> None:
        headers = [("x-who", self.shared.who), ("content-type", content_type)]
        if length is not None:
            headers.append(("content-length", str(length)))
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, fields: Message, status: int = 200) -> None:
        body = (json.dumps({"who": self.shared.who} | fields) + "\n").encode()
        await self.start(status, "application/json", len(body))
        await self.write(body)
        await self.end()


async def echo(exchange: Exchange) -> None:
    """What arrived; `/` and `/upload` alike."""
    query = exchange.scope["query_string"].decode()
    await exchange.answer(
        {
            "method": exchange.scope["method"],
            "path": exchange.scope["path"] + (f"?{query}" if query else ""),
            "protocol": exchange.scope["http_version"],
            "headers": exchange.headers,
            "length": exchange.length,
            "sha256": exchange.sha256,
        }
    )


async def download(exchange: Exchange) -> None:
    """`bytes` bytes made from `seed`."""
    size, seed = int(exchange.number("bytes", 1024)), int(exchange.number("seed", 0))
    await exchange.start(200, "application/octet-stream", size)
    for block in payload.blocks(seed, size):
        await exchange.write(block)
        await asyncio.sleep(0)  # a write that does not block never lets another request have its turn
    await exchange.end()


async def sse(exchange: Exchange) -> None:
    """`n` events (0: without end), `interval` ms apart; with `gate=KEY`, event i > 0 waits for `/release?key=KEY.i`."""
    count, interval = int(exchange.number("n", 3)), exchange.number("interval", 0) / 1000
    await exchange.start(200, "text/event-stream")
    for number in range(count) if count else itertools.count():
        if number and "gate" in exchange.query:
            await exchange.shared.hold(f"{exchange.query['gate']}.{number}")
        data = json.dumps({"who": exchange.shared.who, "n": number, "headers": exchange.headers})
        await exchange.write(f"id: {number}\nevent: tick\ndata: {data}\n\n".encode())
        await asyncio.sleep(interval)
    await exchange.end()


async def stream(exchange: Exchange) -> None:
    """A line each `interval` ms (100), for `seconds` (1)."""
    interval = exchange.number("interval", 100) / 1000
    await exchange.start(200, "text/plain")
    for number in range(max(1, round(exchange.number("seconds", 1) / interval))):
        await exchange.write(f"{exchange.shared.who} {number}\n".encode())
        await asyncio.sleep(interval)
    await exchange.end()


async def delay(exchange: Exchange) -> None:
    """The answer, `ms` later."""
    await asyncio.sleep(exchange.number("ms", 0) / 1000)
    await echo(exchange)


async def status(exchange: Exchange) -> None:
    """The status `code`."""
    code = int(exchange.number("code", 200))
    if code in (204, 304):
        await exchange.start(code, "application/json")
        await exchange.end()
    else:
        await exchange.answer({"status": code}, code)


async def failing(exchange: Exchange) -> None:
    """503 to the first `times` (1) requests that bear this one's `x-request-key`; then the answer of `/`."""
    if exchange.shared.received[exchange.headers[REQUEST_KEY]] <= exchange.number("times", 1):
        await exchange.answer({"status": 503}, 503)
    else:
        await echo(exchange)


async def hold(exchange: Exchange) -> None:
    """A breakpoint: waits until `key` is released, then answers as `/` does."""
    await exchange.shared.hold(exchange.query["key"])
    await echo(exchange)


async def release(exchange: Exchange) -> None:
    """Lets go all that wait at `key`, and those that come later."""
    await exchange.answer({"released": exchange.shared.release(exchange.query["key"])})


async def held(exchange: Exchange) -> None:
    """How many wait at `key`; answers once there are `n` (0)."""
    await exchange.answer({"held": await exchange.shared.held(exchange.query["key"], int(exchange.number("n", 0)))})


async def count(exchange: Exchange) -> None:
    """How many requests bore `x-request-key: key`."""
    key = exchange.query["key"]
    await exchange.answer({"key": key, "count": exchange.shared.received[key]})


async def call_out(exchange: Exchange) -> None:
    """Asks `url` by way of the proxy variables of this process; with `tunnel=1`, through a CONNECT."""
    headers = {name: exchange.headers[name] for name in PASSED_ON if name in exchange.headers}
    try:
        answer = await call(exchange.query["url"], headers, tunnel="tunnel" in exchange.query)
    except OutgoingError as error:
        await exchange.answer({"error": str(error)}, 502)
    else:
        await exchange.answer(answer)


ENDPOINTS: dict[str, Callable[[Exchange], Coroutine[Any, Any, None]]] = {
    "/": echo,
    "/upload": echo,
    "/download": download,
    "/sse": sse,
    "/stream": stream,
    "/delay": delay,
    "/status": status,
    "/failing": failing,
    "/hold": hold,
    "/release": release,
    "/held": held,
    "/count": count,
    "/call": call_out,
}


class EchoApplication:
    """The ASGI application. A path that is no endpoint is answered as `/` is."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "http":
            await self._http(Exchange(scope, receive, send, self._shared))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await lifespan(receive, send)

    async def _http(self, exchange: Exchange) -> None:
        if REQUEST_KEY in exchange.headers:
            self._shared.received[exchange.headers[REQUEST_KEY]] += 1
        try:
            await exchange.read()
        except ConnectionResetError:
            return
        await until_first(ENDPOINTS.get(exchange.scope["path"], echo)(exchange), exchange.disconnected())

    async def _websocket(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        headers = joined(scope["headers"])
        if REQUEST_KEY in headers:
            self._shared.received[headers[REQUEST_KEY]] += 1
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "headers": [(b"x-who", self._shared.who.encode())]})
        await send({"type": "websocket.send", "text": json.dumps({"who": self._shared.who, "headers": headers})})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"], "text": message["text"]})


async def lifespan(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    """Nothing to set up: agrees to the start and to the end."""
    for event in ("lifespan.startup", "lifespan.shutdown"):
        message = await receive()
        assert message["type"] == event
        await send({"type": f"{event}.complete"})


def joined(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their lower-case names; values of the same name joined by commas, as HTTP allows."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin1").lower(), raw_value.decode("latin1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


async def until_first(*work: Coroutine[Any, Any, None]) -> None:
    """Runs all until one ends, then cancels the others."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in work]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
