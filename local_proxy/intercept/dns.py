"""The name server on loopback that the command's questions are led to, and the way to this machine's own ones."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

from local_proxy.intercept.dns_message import LARGEST

_LOOPBACK = "127.0.0.1"
_PORT = 53
_MOST_AT_ONCE = 512
_LENGTH = struct.Struct(">H")
_SERVER_SECONDS = 2.0
"""How long one of this machine's name servers may take."""
_IDLE_SECONDS = 10.0

Answer = Callable[..., Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class Served:
    """Where it listens."""

    udp: int
    tcp: int


@contextlib.asynccontextmanager
async def name_server(answer: Answer) -> AsyncIterator[Served]:
    """A name server, during the block.

    Args:
        answer: of `Resolver`.
    """
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as tasks:

        def begin(work: Coroutine[None, None, None]) -> None:
            if len(running) >= _MOST_AT_ONCE:  # as good as lost; it will be asked again
                work.close()
                return
            task = tasks.create_task(work)
            running.add(task)
            task.add_done_callback(running.discard)

        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(answer, begin), local_addr=(_LOOPBACK, 0))
        server = await asyncio.start_server(
            lambda reader, writer: begin(_serve_stream(answer, reader, writer)), _LOOPBACK, 0, limit=LARGEST + 2
        )
        try:
            yield Served(udp=transport.get_extra_info("sockname")[1], tcp=server.sockets[0].getsockname()[1])
        finally:
            transport.close()
            server.close()
            for task in running:
                task.cancel()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer, begin: Callable[[Coroutine[None, None, None]], None]) -> None:
        self._answer = answer
        self._begin = begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, source: tuple[str | Any, int]) -> None:
        self._begin(self._reply(data, source))

    async def _reply(self, data: bytes, source: tuple[str | Any, int]) -> None:
        if (reply := await self._answer(data)) and not self._transport.is_closing():
            self._transport.sendto(reply, source)


async def _serve_stream(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Messages of a TCP connection, one after the other."""
    with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                message = await reader.readexactly(*_LENGTH.unpack(await reader.readexactly(_LENGTH.size)))
            reply = await answer(message, stream=True)
            if reply is None:
                return
            writer.write(_LENGTH.pack(len(reply)) + reply)
            await writer.drain()


class Forwarder:
    """Asks this machine's own name servers.

    Args:
        servers: tells their addresses, in the order in which they are asked.
        port: theirs.
    """

    def __init__(self, servers: Callable[[], Sequence[str]], port: int = _PORT) -> None:
        self._servers = servers
        self._port = port

    async def __call__(self, message: bytes, stream: bool) -> bytes | None:
        """The first answer; None if none of them gives one."""
        ask = self._by_stream if stream else self._by_datagram
        for server in self._servers():
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_SERVER_SECONDS):
                    return await ask(message, server)
        return None

    async def _by_datagram(self, message: bytes, server: str) -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _OneAnswer(message, loop.create_future()), remote_addr=(server, self._port)
        )
        try:
            return await protocol.answered
        finally:
            transport.close()

    async def _by_stream(self, message: bytes, server: str) -> bytes:
        reader, writer = await asyncio.open_connection(server, self._port)
        with contextlib.closing(writer):
            writer.write(_LENGTH.pack(len(message)) + message)
            return await reader.readexactly(*_LENGTH.unpack(await reader.readexactly(_LENGTH.size)))


class _OneAnswer(asyncio.DatagramProtocol):
    """Sends a message once, and waits for the answer with its number."""

    def __init__(self, message: bytes, answered: asyncio.Future[bytes]) -> None:
        self._message = message
        self.answered = answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.DatagramTransport", transport).sendto(self._message)

    def datagram_received(self, data: bytes, source: tuple[str | Any, int]) -> None:
        del source
        if data[:2] == self._message[:2] and not self.answered.done():
            self.answered.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)
