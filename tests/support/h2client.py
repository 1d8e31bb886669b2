"""A small HTTP/2 client, by prior knowledge: many streams on one connection, bodies both ways a piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

WINDOW_BYTES = 1 << 20
RECEIVE_BYTES = 1 << 16


class ResetError(ConnectionError):
    """The server ended the stream or the connection before the response was whole."""


@dataclass(slots=True)
class Stream:
    """One request and its response."""

    connection: H2Connection
    number: int
    headers: dict[str, str] = field(default_factory=dict)
    """The response's, `:status` included; empty until it begins."""
    events: asyncio.Queue[h2.events.Event | ResetError] = field(default_factory=asyncio.Queue)

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Sends as the server's window allows."""
        await self.connection.send(self.number, data, end=end)

    def reset(self) -> None:
        """Gives the request up (CANCEL); what came of it and was not taken leaves the connection's window to the others."""
        while not self.events.empty():
            event = self.events.get_nowait()
            if isinstance(event, h2.events.DataReceived):
                self.connection.taken(self.number, event.flow_controlled_length)
        self.connection.reset(self.number)

    async def response(self) -> int:
        """Waits for the response to begin and returns its status."""
        while not self.headers:
            event = await self._next()
            if isinstance(event, h2.events.ResponseReceived):
                self.headers = {name.decode(): value.decode("latin1") for name, value in event.headers}
        return int(self.headers[":status"])

    async def body(self) -> AsyncIterator[bytes]:
        """The response's body as it arrives; the server may send on when a piece has been taken."""
        while not isinstance(event := await self._next(), h2.events.StreamEnded):
            if isinstance(event, h2.events.DataReceived):
                yield event.data
                self.connection.taken(self.number, event.flow_controlled_length)

    async def _next(self) -> h2.events.Event:
        event = await self.events.get()
        if isinstance(event, ResetError):
            raise event
        return event


class H2Connection:
    """Use `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._streams: dict[int, Stream] = {}
        self._window_grew = asyncio.Event()
        self._lost: ResetError | None = None
        configuration = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(configuration)
        # Whole, and before the connection begins: a value set in h2's own settings is not announced by the first frame,
        # yet taken for agreed when that frame is acknowledged.
        codes = h2.settings.SettingCodes
        values = {codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: WINDOW_BYTES}
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES)
        self._flush()

    def request(
        self, method: str, authority: str, path: str, headers: Mapping[str, str], *, end: bool = True
    ) -> Stream:
        """Starts a request; without `end`, a body follows by `Stream.send`."""
        number = self._h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)]
        self._streams[number] = stream = Stream(self, number)
        self._h2.send_headers(number, [*pseudo, *headers.items()], end_stream=end)
        self._flush()
        return stream

    async def send(self, number: int, data: bytes, *, end: bool) -> None:
        view = memoryview(data)
        while view:
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._window_grew.clear()
                await self._window_grew.wait()
                if self._lost:
                    raise self._lost
                continue
            self._h2.send_data(number, bytes(view[:room]))
            view = view[room:]
            self._flush()
            await self._writer.drain()
        if end:
            self._h2.end_stream(number)
            self._flush()

    def taken(self, number: int, size: int) -> None:
        self._h2.acknowledge_received_data(size, number)
        self._flush()

    def reset(self, number: int) -> None:
        self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    async def receive(self) -> None:
        """Reads until the connection ends; runs beside the requests."""
        reason = "the connection was closed"
        try:
            while data := await self._reader.read(RECEIVE_BYTES):
                for event in self._h2.receive_data(data):
                    self._dispatch(event)
                self._flush()
        except OSError as error:
            reason = f"the connection broke: {error}"
        self._lost = ResetError(reason)
        self._window_grew.set()
        for stream in self._streams.values():
            stream.events.put_nowait(self._lost)

    def _dispatch(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._window_grew.set()
        elif isinstance(event, h2.events.StreamReset):
            self._streams[event.stream_id].events.put_nowait(ResetError(f"the stream was reset: {event.error_code!r}"))
            self._window_grew.set()
        elif number in self._streams:
            self._streams[number].events.put_nowait(event)

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)


@asynccontextmanager
async def connect(address: tuple[str, int]) -> AsyncIterator[H2Connection]:
    """A connection to a server that is known to speak HTTP/2, for the length of the block."""
    reader, writer = await asyncio.open_connection(*address)
    connection = H2Connection(reader, writer)
    async with asyncio.TaskGroup() as group:
        receiving = group.create_task(connection.receive())
        try:
            yield connection
        finally:
            receiving.cancel()
            writer.close()


async def send_all(stream: Stream, pieces: Iterable[bytes]) -> None:
    """Sends a body of several pieces and ends it."""
    for piece in pieces:
        await stream.send(piece)
    await stream.send(b"", end=True)
