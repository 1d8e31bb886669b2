"""What a signal means to `hairpin run`: the command's business while there is one, else the end of the session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALLED = 128
"""A shell's exit code for a process ended by signal n is this plus n."""


class Signals:
    """Routes signals. While a command is attached it gets them; otherwise the task that made this is cancelled, once.

    So whatever the signal interrupts can clean up, and further ones don't disturb it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that cancelled us."""
        self._send: Callable[[int], None] | None = None
        self._interrupted: Callable[[], None] | None = None
        self._task = asyncio.current_task()
        self._closing = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[Signals]:
        """Handle signals inside the context."""
        loop = asyncio.get_running_loop()
        handled = (*FORWARDED, *FROM_TERMINAL)
        for number in handled:
            loop.add_signal_handler(number, self._handle, number)
        try:
            with _stopped_with_children():
                yield self
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    @contextlib.contextmanager
    def forwarded(self, send: Callable[[int], None], interrupted: Callable[[], None]) -> Iterator[None]:
        """Pass signals on to a command, inside the context; `interrupted` hears of each SIGINT besides."""
        self._send, self._interrupted = send, interrupted
        try:
            yield
        finally:
            self._send = self._interrupted = None
            self._closing = True

    @property
    def exit_code(self) -> int:
        """What a shell makes of the signal that cancelled us."""
        return SIGNALLED + (self.received or 0)

    def _handle(self, number: int) -> None:
        if self._send is not None:
            # The terminal sends Ctrl-C and Ctrl-\ to its whole foreground job, the command included: it must not get
            # them twice. Where no terminal has us in the foreground, somebody sent the signal to us alone.
            if number not in FROM_TERMINAL or not in_foreground():
                self._send(number)
            if number == signal.SIGINT and self._interrupted is not None:
                self._interrupted()
        elif number in ENDING and not self._closing and self._task is not None:
            self._closing = True
            self.received = number
            self._task.cancel()


@contextlib.contextmanager
def _stopped_with_children() -> Iterator[None]:
    """Have a Ctrl-Z stop us even if it comes amid the start of another program.

    In vfork(2) we wait for the child and can't be stopped, and the child, stopped, never goes on: the terminal hangs. The
    switch is the subprocess module's own (its documentation, "Disabling use of vfork() or posix_spawn()").
    """
    switches = vars(subprocess)
    before = switches["_USE_VFORK"]
    switches["_USE_VFORK"] = False
    try:
        yield
    finally:
        switches["_USE_VFORK"] = before


def in_foreground() -> bool:
    """Whether we stand in the foreground of our controlling terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
