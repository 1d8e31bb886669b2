"""Passes bytes both ways between two sockets each, in a thread of its own: the data of connects that were answered in limbo."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import struct
import threading
from collections.abc import Callable

from local_proxy.intercept.reactor import Reactor

_CHUNK = 1 << 18
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_RESET = struct.pack("=ii", 1, 0)  # SO_LINGER: closed by a reset


class _Flow:
    """One way. Reads only while nothing is left to be written."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.rest = b""
        self.ended = False
        """The source has ended."""
        self.over = False
        """And the sink was told."""

    def pump(self, room: memoryview) -> None:
        """Pass on what there is.

        Raises:
            OSError: an end is broken.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                while self.rest:
                    self.rest = self.rest[self.sink.send(self.rest) :]
                if self.ended:
                    break
                count = self.source.recv_into(room)
                self.ended = not count
                sent = 0
                try:
                    while sent < count:
                        sent += self.sink.send(room[sent:count])
                finally:
                    self.rest = bytes(room[sent:count])
                if count < len(room) and not self.ended:
                    break  # that was all: epoll says when there is more
        if self.ended and not self.rest and not self.over:
            self.over = True
            self.sink.shutdown(socket.SHUT_WR)


class _Pair:
    """Two sockets, and both ways."""

    def __init__(
        self,
        reactor: Reactor,
        room: memoryview,
        one: socket.socket,
        other: socket.socket,
        closed: Callable[[_Pair], None],
    ) -> None:
        self._reactor = reactor
        self._room = room
        self._closed = closed
        there, back = _Flow(one, other), _Flow(other, one)
        self._flows = (there, back)
        self._ends = {one.fileno(): (there, back), other.fileno(): (back, there)}
        self._wanted: dict[int, int | None] = dict.fromkeys(self._ends, select.EPOLLIN)

    def start(self) -> None:
        """Begin."""
        for descriptor in self._ends:
            ready = functools.partial(self._ready, descriptor)
            self._reactor.watch(descriptor, select.EPOLLIN, ready)

    def close(self, *, broken: bool) -> None:
        """End both; if one is broken, by a reset."""
        for descriptor, (flow, _) in self._ends.items():
            self._reactor.forget(descriptor)
            if broken:
                with contextlib.suppress(OSError):
                    flow.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            flow.source.close()
        self._ends.clear()
        self._closed(self)

    def _ready(self, descriptor: int, events: int) -> None:
        if descriptor not in self._ends:
            return
        try:
            if events & _BROKEN and self._ends[descriptor][0].ended:
                raise ConnectionResetError
            for flow in self._flows:
                flow.pump(self._room)
        except OSError:
            self.close(broken=True)
            return
        if all(flow.over for flow in self._flows):
            self.close(broken=False)
            return
        for end, (read, written) in self._ends.items():
            self._want(end, read, written)

    def _want(self, end: int, read: _Flow, written: _Flow) -> None:
        wanted = (0 if read.ended or read.rest else select.EPOLLIN) | (select.EPOLLOUT if written.rest else 0)
        # epoll tells errors and hang-ups whatever is asked of it, again and again. Where nothing is, they matter only of an end
        # that has said all and may break off the other way; else it would spin until the other end reads.
        known: int | None = wanted if wanted or (read.ended and not written.over) else None
        if known == self._wanted[end]:
            return
        if known is None:
            self._reactor.forget(end)
        elif self._wanted[end] is None:
            self._reactor.watch(end, known, functools.partial(self._ready, end))
        else:
            self._reactor.change(end, known)
        self._wanted[end] = known


class Relay:
    """The thread. It is started by the first pair."""

    def __init__(self) -> None:
        self._reactor = Reactor()
        self._room = memoryview(bytearray(_CHUNK))
        self._pairs: set[_Pair] = set()
        self._thread: threading.Thread | None = None

    def add(self, one: socket.socket, other: socket.socket) -> None:
        """Pass bytes between two connected sockets, which are closed at the end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._reactor.run, name="hairpin-relay", daemon=True)
            self._thread.start()
        self._reactor.post(lambda: self._start(one, other))

    def close(self) -> None:
        """End all."""
        self._reactor.stop()
        if self._thread is not None:
            self._thread.join()
        for pair in tuple(self._pairs):
            pair.close(broken=True)
        self._reactor.close()

    def _start(self, one: socket.socket, other: socket.socket) -> None:
        for each in (one, other):
            each.setblocking(False)
        pair = _Pair(self._reactor, self._room, one, other, self._pairs.discard)
        self._pairs.add(pair)
        pair.start()
