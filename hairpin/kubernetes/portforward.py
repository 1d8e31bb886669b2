"""Ports of pods on loopback, through the API server: what `kubectl port-forward` does, for this program's own use.

Each connection is one WebSocket to `pods/NAME/portforward` (v4.channel.k8s.io): channel 0 carries the bytes, channel 1 says
what went wrong; the first frame of either repeats the port. A new connection finds whichever pod has the name by then.

    async with forward(api, "shop", "checkout-5d9c-x", 15000) as (host, port):
        …

The protocol knows no half-closed connections: whoever ends one direction ends both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from hairpin.errors import HairpinError, NotFoundError, UnavailableError
from hairpin.kubernetes.api import Api
from hairpin.kubernetes.errors import ApiError, ApiForbiddenError, ApiInvalidError, ApiNotFoundError
from hairpin.kubernetes.kinds import PODS

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

log = logging.getLogger(__name__)

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_LOOPBACK = "127.0.0.1"
_CHUNK = 64 * 1024
_BORNE_SECONDS = 30.0
"""How long being forbidden is borne where it once worked: an API server that has just begun knows no roles yet."""
_HIGH = 4 * _CHUNK
"""Bytes read here and not sent yet, past which no more are read."""


class Right:
    """Whether we may connect to a namespace's pods: that it was so once, and since when it has not been.

    What is borne is not told: an API server that has just begun forbids everything for a moment.
    """

    def __init__(self) -> None:
        self._proven = False
        self._missed: float | None = None

    def works(self) -> None:
        """A connection was let through."""
        self._proven, self._missed = True, None

    def is_borne(self) -> bool:
        """One was forbidden: whether that may be for a moment."""
        if not self._proven:
            return False
        self._missed = self._missed or time.monotonic()
        return time.monotonic() - self._missed < _BORNE_SECONDS


@contextlib.asynccontextmanager
async def forward(
    api: Api, namespace: str, pod: str, port: int, *, on_error: Callable[[HairpinError], None] | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A listener on loopback that leads to a pod's port, until the context ends.

    Args:
        api: the API server.
        namespace: the pod's.
        pod: its name; it need not exist yet.
        port: of the pod.
        on_error: called when a connection can't be made or breaks off, once for the same thing in a row; else it is logged.
    """
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    forwarding = PortForward(api, namespace, pod, port, tasks, on_error=on_error)
    try:
        yield await forwarding.listen()
    finally:
        forwarding.close()
        # What the body raised is the body's, and no member of a group.
        await tasks.__aexit__(None, None, None)


class PortForward:
    """A listener whose connections are tasks of a given group: for whoever has many.

    Args:
        api: the API server.
        namespace: the pod's.
        pod: its name.
        port: of the pod.
        tasks: the group.
        on_error: as `forward` has it.
        right: shared with the forwards of the same namespace.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        pod: str,
        port: int,
        tasks: asyncio.TaskGroup,
        *,
        on_error: Callable[[HairpinError], None] | None = None,
        right: Right | None = None,
    ) -> None:
        self._api = api
        self._pod = f"{namespace}/{pod}"
        self._path = PODS.path(namespace, pod, "portforward")
        self._namespace = namespace
        self._port = port
        self._tasks = tasks
        self._on_error = on_error or (lambda error: log.warning("%s", error))
        self._told = ""
        self._right = right or Right()
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def listen(self) -> tuple[str, int]:
        """Begin; where."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self._begin), _LOOPBACK, 0)
        host, port = self._server.sockets[0].getsockname()
        return host, port

    def close(self) -> None:
        """Take no more, and end what is under way."""
        if self._server is not None:
            self._server.close()
        for task in self._running:
            task.cancel()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._running)

    def _begin(self, connection: _Connection) -> None:
        task = self._tasks.create_task(self._carry(connection))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # A task that is cancelled before its first step would leave the connection open.
        task.add_done_callback(lambda _: connection.close())

    async def _carry(self, connection: _Connection) -> None:
        query = {"ports": str(self._port)}
        try:
            async with self._api.websocket(self._path, query=query, protocols=(_PROTOCOL,)) as socket:
                await self._pump(connection, socket)
        except ApiError as error:
            if isinstance(error, ApiForbiddenError) and self._right.is_borne():
                return
            if explained := await self._explained(error):
                self._tell(explained)
        except HairpinError as error:  # credentials
            self._tell(error)

    async def _pump(self, connection: _Connection, socket: ClientWebSocketResponse) -> None:
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send(connection, socket))
            try:
                await self._receive(connection, socket)
            finally:
                sending.cancel()

    async def _receive(self, connection: _Connection, socket: ClientWebSocketResponse) -> None:
        from aiohttp import WSMsgType  # noqa: PLC0415 # not for --version

        begun: set[int] = set()
        problem = ""
        while (message := await socket.receive()).type is WSMsgType.BINARY:
            data: bytes = message.data
            channel = data[0] if data else _ERROR
            if channel not in begun:
                begun.add(channel)
            elif channel == _DATA:
                self._told = ""
                self._right.works()
                connection.write(memoryview(data)[1:])
                if connection.full:
                    await connection.emptied()
            else:
                problem += data[1:].decode(errors="replace")
        if problem:
            self._tell(UnavailableError(f"port {self._port} of pod {self._pod} can't be reached: {problem.strip()}"))

    async def _explained(self, error: ApiError) -> HairpinError | None:
        """The error with the API server's words, which a refused WebSocket does not bring; the same asked as plain GET does.

        None if it is borne.
        """
        try:
            await self._api.call("GET", self._path, query={"ports": str(self._port)})
        except ApiForbiddenError as said:
            if self._right.is_borne():
                return None
            return HairpinError(
                f"you may not connect to pod {self._pod}: {said}; it takes `get` and `create` on pods/portforward, which "
                f"the ClusterRole hairpin-developer has: ask an operator to bind it in namespace {self._namespace}"
            )
        except ApiNotFoundError as said:
            return NotFoundError(f"there is no pod {self._pod} to connect to: {said}")
        except ApiInvalidError as said:
            # To a pod that could be reached, a plain GET is wrong as such.
            if "pgrade" not in str(said):
                return UnavailableError(f"pod {self._pod} can't be reached: {said}")
        except HairpinError as said:
            return said
        return UnavailableError(f"pod {self._pod} can't be reached: {error}")

    def _tell(self, error: HairpinError) -> None:
        if str(error) != self._told:
            self._told = str(error)
            self._on_error(error)


async def _send(connection: _Connection, socket: ClientWebSocketResponse) -> None:
    try:
        while frame := await connection.read():
            await socket.send_bytes(frame)
    except ConnectionResetError:
        pass  # whoever receives is told so too
    await socket.close()


class _Connection(asyncio.BufferedProtocol):
    """The local end. What comes in becomes frames with the channel's number in front, with one copy."""

    def __init__(self, begin: Callable[[_Connection], None]) -> None:
        self._begin = begin
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(1 + _CHUNK)
        self._buffer[0] = _DATA
        self._room = memoryview(self._buffer)[1:]
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        self._paused = False
        self._ended = False
        self._came = asyncio.Event()
        self._went = asyncio.Event()
        self.full = False
        """Whether writing should wait until it is `emptied`."""

    # The loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        self._begin(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._frames.append(bytes(memoryview(self._buffer)[: 1 + nbytes]))
        self._waiting += nbytes
        self._came.set()
        if self._waiting > _HIGH and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._end()
        return True  # what is still to come to here arrives

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._end()

    def pause_writing(self) -> None:
        self.full = True
        self._went.clear()

    def resume_writing(self) -> None:
        self.full = False
        self._went.set()

    def _end(self) -> None:
        self._ended = True
        self._came.set()
        self._went.set()

    # The pump's side

    async def read(self) -> bytes:
        """The next frame; empty at the end."""
        while not self._frames:
            if self._ended:
                return b""
            self._came.clear()
            await self._came.wait()
        frame = self._frames.popleft()
        self._waiting -= len(frame) - 1
        if self._paused and self._waiting <= _HIGH // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return frame

    def write(self, data: memoryview) -> None:
        """Write, now or when there is room."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def emptied(self) -> None:
        """Wait for room; or for the connection's end."""
        await self._went.wait()

    def close(self) -> None:
        """Close it when what was written has gone."""
        if self._transport is not None:
            self._transport.close()
