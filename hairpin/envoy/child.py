"""One run of a program: its output line by line, its exit, and its end. No tasks: everything is a callback of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar, cast

from hairpin.envoy.leash import leashed, suitable_leash

log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_LINE: Final = 1 << 20
"""Bytes; far above what Envoy's limit on headers (60 KiB) lets into an access log. A longer line is dropped."""
_SLICE_SECONDS: Final = 0.005
"""How long lines are delivered before the loop's other work gets a turn."""
_PAUSE_AT: Final = 2000
_RESUME_AT: Final = 200
"""Lines that wait for a slow consumer before Envoy's pipe is no longer read, and until it is again."""


class LineSplitter:
    """Bytes in, whole lines out, without their ends."""

    def __init__(self, longest: int = MAX_LINE) -> None:
        self._buffer = bytearray()
        self._longest = longest
        self._dropping = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that these bytes complete."""
        searched = len(self._buffer)
        self._buffer += data
        start = 0
        while (end := self._buffer.find(b"\n", max(start, searched))) >= 0:
            if not self._dropping and end - start <= self._longest:
                yield bytes(self._buffer[start:end])
            else:
                log.warning("a line of more than %d bytes was dropped", self._longest)
            self._dropping = False
            start = end + 1
        del self._buffer[:start]
        if len(self._buffer) > self._longest:
            self._dropping = True
            self._buffer.clear()

    def rest(self) -> Iterator[bytes]:
        """What stood behind the last line's end, at the end of all."""
        if self._buffer and not self._dropping:
            yield bytes(self._buffer)
        self._buffer.clear()


class Child(asyncio.SubprocessProtocol):
    """A started program. Made by `Child.spawn`.

    Args:
        on_stdout: called with each line of stdout. When it is slow, the rest of the loop's work still gets its turn, and
            at some point the program's writes wait.
        on_stderr: likewise for stderr, which is never kept waiting: Envoy's main thread writes it.
        on_exit: called with the exit code, negative for a signal, if it ends unasked.
    """

    def __init__(
        self, on_stdout: Callable[[bytes], None], on_stderr: Callable[[bytes], None], on_exit: Callable[[int], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on = {1: on_stdout, 2: on_stderr}
        self._on_exit = on_exit
        self._splitters = {1: LineSplitter(), 2: LineSplitter()}
        self._waiting: deque[bytes] = deque()
        self._delivering = self._paused = self._disconnected = False
        self._transport: asyncio.SubprocessTransport | None = None
        self.started = self._loop.time()
        self.seconds = 0.0
        """How long it ran, once it has ended."""
        self.code: int | None = None
        self.asked = False
        """Set by whoever wants it to end."""
        self.exited = asyncio.Event()
        """Set when the program has ended."""
        self.finished = asyncio.Event()
        """Set when, beyond that, all its output was delivered."""

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        on_stdout: Callable[[bytes], None],
        on_stderr: Callable[[bytes], None],
        on_exit: Callable[[int], None],
        leash: str | None = None,
    ) -> Child:
        """Starts a program on a leash, in a session of its own: a terminal's Ctrl-C doesn't reach it.

        Raises:
            OSError: it can't be started.
        """
        leash = leash or suitable_leash()
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        _, protocol = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(on_stdout, on_stderr, on_exit),
            *leashed(command, leash),
            stdin=pipe if leash == "pipe" else null,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        return protocol

    @property
    def pid(self) -> int:
        """The program's process id, also after its end."""
        assert self._transport is not None  # noqa: S101 - set before spawn returns
        return self._transport.get_pid()

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as the loop has heard."""
        return self.code is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if it still runs."""
        if self._transport is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(number)

    async def wait(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        return await _within(self.exited, seconds)

    async def kill(self, seconds: float = 2.0) -> None:
        """Ends it for certain, and waits a little for the rest of its output. Safe when it has ended."""
        self.signal(signal.SIGKILL)
        await _within(self.finished, seconds)
        if self._transport is not None:
            self._transport.close()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Started."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Output."""
        self._take(fd, self._splitters[fd].feed(data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The end of one output."""
        del exc
        if fd in self._splitters:
            self._take(fd, self._splitters[fd].rest())

    def process_exited(self) -> None:
        """The end of the program; output may still come."""
        assert self._transport is not None  # noqa: S101
        self.code = self._transport.get_returncode() or 0
        leash = self._transport.get_pipe_transport(0)
        if leash is not None:
            leash.close()  # so that its watcher ends
        self.seconds = self._loop.time() - self.started
        self.exited.set()
        if not self.asked:
            self._call(self._on_exit, self.code)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of it all."""
        del exc
        self._disconnected = True
        if self._transport is not None:
            self._transport.close()
        self._deliver()

    def _take(self, fd: int, lines: Iterator[bytes]) -> None:
        if fd == 2:  # noqa: PLR2004
            for line in lines:
                self._call(self._on[2], line)
            return
        self._waiting.extend(lines)
        if not self._delivering:
            self._deliver()

    def _deliver(self) -> None:
        until = self._loop.time() + _SLICE_SECONDS
        while self._waiting and self._loop.time() < until:
            self._call(self._on[1], self._waiting.popleft())
        self._delivering = bool(self._waiting)
        if self._delivering:
            self._loop.call_soon(self._deliver)
        elif self._disconnected:
            self.finished.set()
        self._pace()

    def _pace(self) -> None:
        paused = len(self._waiting) > (_RESUME_AT if self._paused else _PAUSE_AT)
        if paused == self._paused or self._transport is None:
            return
        self._paused = paused
        pipe = cast("asyncio.ReadTransport | None", self._transport.get_pipe_transport(1))
        if pipe is not None and not pipe.is_closing():
            (pipe.pause_reading if paused else pipe.resume_reading)()

    def _call(self, callback: Callable[[_T], None], value: _T) -> None:
        try:
            callback(value)
        except Exception:
            # It must cost no more than this one line.
            log.exception("a callback failed")


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
