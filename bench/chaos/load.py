"""Keep-alive load over raw sockets: one request at a time on each connection, and none is ever repeated.

A usual HTTP client repeats an idempotent request when its connection breaks, silently: it would hide what is counted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from bench.chaos.records import OK, Kind, Record

CONNECTIONS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    *((Kind.UNMATCHED, ("/", "/delay?ms=50", "/", "/stream?ms=150")),) * 4,
    *((Kind.GET, ("/",)),) * 3,  # these see at once who answers, whatever the others wait for
    *((Kind.GET, ("/", "/", "/delay?ms=150", "/", "/", "/stream?ms=300")),) * 3,
    *((Kind.POST, ("/", "/delay?ms=150", "/")),) * 4,
    *((Kind.BYSTANDER, ("/", "/", "/stream?ms=150", "/")),) * 2,
)
"""What each of the 16 connections sends, over and over. A fault always finds requests whose answer has not begun, and some in
its body."""
PAUSE_SECONDS = 0.01
"""Between two requests of a connection: the machine is shared with everything that is under load."""
TIMEOUT_SECONDS = 20.0
"""A request that takes so long has failed."""
STUCK_SECONDS = 10.0
"""Without an answer for so long, it is asked where the request is, while that can still be seen."""
LOOK_SECONDS = 1.0
BODY = b"x" * 2000

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Load:
    """Running load. Its records are complete once it has stopped.

    Args:
        connect: opens a connection to the service; OSError if it can't.
        service: the Host of every request.
        environment: the value of `x-env` in matched requests.
        bystander: the same, of the bystander's.
        pause: seconds between two requests of a connection.
        under_way: what there is to see of requests that are under way.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Streams]],
        *,
        service: str,
        environment: str,
        bystander: str,
        pause: float = PAUSE_SECONDS,
        under_way: Callable[[], Awaitable[str]],
    ) -> None:
        self.records: list[Record] = []
        self.stuck = ""
        """Of the first request that had no answer for long: which it was, and what was under way then."""
        self._connect = connect
        self._service = service
        self._pause = pause
        self._environments = {Kind.GET: environment, Kind.POST: environment, Kind.BYSTANDER: bystander}
        self._under_way = under_way
        self._waiting: dict[int, Record] = {}
        self._stopping = False
        self._name = secrets.token_hex(4)
        self._keys = itertools.count()
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Under load inside; at the end each connection finishes its request."""
        async with asyncio.TaskGroup() as watching:
            watch = watching.create_task(self._watch())
            async with asyncio.TaskGroup() as tasks:
                for number, (kind, paths) in enumerate(CONNECTIONS):
                    tasks.create_task(self._connection(kind, itertools.islice(itertools.cycle(paths), number, None)))
                try:
                    yield self
                finally:
                    self._stopping = True
            watch.cancel()

    async def until(self, holds: Callable[[list[Record]], bool], seconds: float) -> bool:
        """Wait until the records show something; False if they don't in time."""
        try:
            async with asyncio.timeout(seconds):
                while not holds(self.records):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def _watch(self) -> None:
        """Look once where a request is that has had no answer for long."""
        while not self.stuck:
            await asyncio.sleep(LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            for record in self._waiting.values():
                if record.begun is None and now - record.sent > STUCK_SECONDS:
                    seen = await self._under_way()
                    self.stuck = f"no answer {STUCK_SECONDS:g} s after {record.kind} {record.path} was sent: {seen}"
                    break

    async def _connection(self, kind: Kind, paths: Iterator[str]) -> None:
        while not self._stopping:
            with contextlib.suppress(OSError):
                reader, writer = await self._connect()
                try:
                    await self._requests(reader, writer, kind, paths)
                finally:
                    writer.close()
                continue
            await asyncio.sleep(PAUSE_SECONDS)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Kind, paths: Iterator[str]
    ) -> None:
        while not self._stopping:
            record = Record(kind=kind, path=next(paths), sent=asyncio.get_running_loop().time())
            writer.write(self._request(record))
            self._waiting[id(record)] = record
            goes_on = await exchange(reader, record)
            del self._waiting[id(record)]
            self.records.append(record)
            self._ended.set()
            if not goes_on:
                return
            await asyncio.sleep(self._pause)

    def _request(self, record: Record) -> bytes:
        lines = [f"{'POST' if record.kind is Kind.POST else 'GET'} {record.path} HTTP/1.1", f"host: {self._service}"]
        if environment := self._environments.get(record.kind):
            lines.append(f"x-env: {environment}")
        body = b""
        if record.kind is Kind.POST:
            record.key = f"{self._name}-{next(self._keys)}"
            body = BODY
            lines += [f"x-request-key: {record.key}", f"content-length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


async def exchange(reader: asyncio.StreamReader, record: Record) -> bool:
    """Read the response into the record; whether the connection may be used again."""
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            start = await reader.readexactly(1)
            record.begun = clock()
            status, *lines = (start + await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            record.status, record.who = int(status.split(" ")[1]), headers.get("x-who", "")
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
            else:
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if record.status != OK:
                    record.text = body.decode(errors="replace")
            return headers.get("connection") != "close"
    except (asyncio.IncompleteReadError, OSError, TimeoutError, ValueError) as error:
        record.error = f"{type(error).__name__}: {error}"
        return False
    finally:
        record.ended = clock()
