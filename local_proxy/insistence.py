"""Ctrl-C again and again: how a command that heeds no signal is ended all the same.

Ctrl-C is the command's, and one that shuts down in its own time, or a debugger that takes it for a key, is left alone:
only who presses it twice within seconds is told that the next one kills, and only then does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import termios
from collections.abc import Callable

import psutil

AGAIN_SECONDS = 10.0
"""Two Ctrl-C further apart have nothing to do with each other."""
HEEDED_SECONDS = 0.3
"""How long the command has to end after the second, before the user is told of the third."""
_STANDARD_INPUT = 0
_LOCAL_FLAGS = 3  # tcgetattr's list: iflag, oflag, cflag, lflag, …


class Insistence:
    """Counts the Ctrl-C that a command gets.

    Args:
        pid: the command's process; it runs while this is in use.
        name: what to call it.
        warn: tells the user.
    """

    def __init__(self, pid: int, name: str, warn: Callable[[str], None]) -> None:
        self._pid = pid
        self._name = name
        self._warn = warn
        self._last: float | None = None
        self._warned = False
        self._pending: asyncio.TimerHandle | None = None

    def interrupted(self) -> None:
        """It was pressed."""
        loop = asyncio.get_running_loop()
        now, last = loop.time(), self._last
        self._last = now
        if last is None or now - last > AGAIN_SECONDS:
            self._warned = False
        elif self._warned:
            self._kill()
        elif self._pending is None:
            self._pending = loop.call_later(HEEDED_SECONDS, self._tell)

    def over(self) -> None:
        """The command has ended."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _tell(self) -> None:
        self._pending = None
        if not _reads_keys():
            self._warned = True
            self._warn(f"{self._name} is still running; Ctrl-C once more kills it")

    def _kill(self) -> None:
        # With what it started, which would keep the port.
        with contextlib.suppress(psutil.Error):
            command = psutil.Process(self._pid)
            processes = [command, *command.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()


def _reads_keys() -> bool:
    """Whether the command has the terminal give it each key as it is typed: a debugger, a REPL, an editor."""
    try:
        return not termios.tcgetattr(_STANDARD_INPUT)[_LOCAL_FLAGS] & termios.ICANON
    except termios.error:
        return False
