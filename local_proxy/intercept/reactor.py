"""The supervisor's own loop, in its own thread: asyncio's may be busy, and a call that waits is a program that waits."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable

_log = logging.getLogger("hairpin.intercept")
_Ready = Callable[[int], None]


class Reactor:
    """Calls back when descriptors are ready, when something was posted by another thread, and when a time has come."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, _Ready] = {}
        self._deadlines: dict[int, tuple[float, Callable[[], None]]] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False
        self._closed = False
        self.watch(self._wake, select.EPOLLIN, self._on_wake)

    def watch(self, descriptor: int, events: int, ready: _Ready) -> None:
        """Call `ready` with the events whenever there are some."""
        self._epoll.register(descriptor, events)
        self._callbacks[descriptor] = ready

    def change(self, descriptor: int, events: int, ready: _Ready | None = None) -> None:
        """Watch it for other events, and call something else if that is given."""
        self._epoll.modify(descriptor, events)
        if ready is not None:
            self._callbacks[descriptor] = ready

    def forget(self, descriptor: int) -> None:
        """Stop that, before the descriptor is closed."""
        self._deadlines.pop(descriptor, None)
        if self._callbacks.pop(descriptor, None):
            self._epoll.unregister(descriptor)

    def until(self, descriptor: int, seconds: float, late: Callable[[], None]) -> None:
        """Call `late` unless the descriptor is forgotten before."""
        self._deadlines[descriptor] = (time.monotonic() + seconds, late)

    def post(self, call: Callable[[], None]) -> None:
        """Have something called in this thread; from any thread."""
        self._posted.append(call)
        if not self._closed:
            os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Until stopped."""
        while not self._stopped:
            for descriptor, events in self._epoll.poll(self._patience()):
                ready = self._callbacks.get(descriptor)
                if ready is not None:
                    self._guarded(lambda ready=ready, events=events: ready(events))  # type: ignore[misc]
            self._sweep()

    def stop(self) -> None:
        """Have `run` return; from any thread."""
        self._stopped = True
        self.post(lambda: None)

    def close(self) -> None:
        """After `run` has returned."""
        self._closed = True
        self._epoll.close()
        with contextlib.suppress(OSError):
            os.close(self._wake)

    def _on_wake(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while self._posted:
            self._guarded(self._posted.popleft())

    def _patience(self) -> float | None:
        if not self._deadlines:
            return None
        return max(0.0, min(until for until, _ in self._deadlines.values()) - time.monotonic())

    def _sweep(self) -> None:
        if not self._deadlines:
            return
        now = time.monotonic()
        for descriptor, (until, late) in list(self._deadlines.items()):
            if until <= now:
                self._deadlines.pop(descriptor, None)
                self._guarded(late)

    def _guarded(self, call: Callable[[], None]) -> None:
        # One call that went wrong must not leave all later ones without an answer.
        try:
            call()
        except Exception:  # noqa: BLE001 - whatever it was
            _log.exception("interception: a call was not answered as it should be")
