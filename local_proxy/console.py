"""What hairpin says while the command runs: whole lines on stderr, marked as ours."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Mapping

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_STANDARD_ERROR = 2
_OUTPUT_FLAGS = 1  # tcgetattr's list: iflag, oflag, …

MOST_WAITING = 1000
"""Lines that wait for a terminal that takes none; of more the latest are kept."""
MOST_CALLS = 50
"""Lines of calls in a burst; more are left out."""
CALLS_PER_SECOND = 10.0
"""Lines of calls that may follow."""


class _Patient:
    """Writes, from any thread, and has nobody wait.

    A terminal that was stopped by Ctrl-S, or a pipe that nobody reads, takes its lines later, in their order. At the end of the
    program they are waited for, as any program's are.

    Args:
        descriptor: where to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)

    def write(self, data: bytes) -> None:
        """Write at once if that can be done, else when it can."""
        with self._lock:
            if not self._waiting and self._takes():
                self._put(data)
                return
            self._waiting.append(data)
            if len(self._waiting) == 1:
                threading.Thread(target=self._catch_up, name="hairpin-console").start()

    def _catch_up(self) -> None:
        while True:
            with self._lock:
                data = self._waiting[0]
            self._takes(None)  # a command may have made the terminal one that does not wait
            self._put(data)
            with self._lock:
                if self._waiting[0] is data:
                    self._waiting.popleft()
                if not self._waiting:
                    return

    def _takes(self, seconds: float | None = 0) -> bool:
        try:
            return bool(select.select([], [self._descriptor], [], seconds)[1])
        except (OSError, ValueError):  # it is closed: so says the write
            return True

    def _put(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, data)


class Console:
    """Writes lines.

    Args:
        quiet: say nothing but what went wrong.
        requests: whether requests get a line each.
        environ: for NO_COLOR (no-color.org) and TERM.
        descriptor: where to write.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        requests: bool = True,
        environ: Mapping[str, str] | None = None,
        descriptor: int = _STANDARD_ERROR,
    ) -> None:
        environ = os.environ if environ is None else environ
        self._descriptor = descriptor
        self._patient = _Patient(descriptor)
        self._quiet = quiet
        self._requests = requests and not quiet
        self._calls, self._called, self._untold = float(MOST_CALLS), time.monotonic(), 0
        self._terminal = os.isatty(descriptor)
        self._styled = self._terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"

    @property
    def tells_requests(self) -> bool:
        """Whether requests get lines."""
        return self._requests

    def say(self, text: str) -> None:
        """What happens."""
        if not self._quiet:
            self._write(text)

    def warn(self, text: str) -> None:
        """What went wrong; also when quiet."""
        self._write(text)

    def request(self, text: str) -> None:
        """A request."""
        if self._requests:
            self._write(text)

    def call(self, text: str) -> None:
        """A call of the command's; past a rate they are left out, and counted."""
        if not self._requests:
            return
        now = time.monotonic()
        self._calls = min(MOST_CALLS, self._calls + (now - self._called) * CALLS_PER_SECOND)
        self._called = now
        if self._calls < 1:
            self._untold += 1
            return
        self._calls -= 1
        if self._untold:
            self._write(f"<- {self._untold} more calls, too many to tell")
            self._untold = 0
        self._write(text)

    def _write(self, text: str) -> None:
        prefix = f"{_DIM}hairpin{_PLAIN}" if self._styled else "hairpin"
        end = "\r\n" if self._raw() else "\n"
        # A path or a header in it may hold anything; a control character would move the cursor.
        line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
        # One write, so that the command's own lines stay whole too.
        self._patient.write(f"{prefix} {line}{end}".encode(errors="replace"))

    def _raw(self) -> bool:
        """Whether the command has the terminal in raw mode, where a line feed does not return the carriage."""
        if not self._terminal:
            return False
        try:
            return not termios.tcgetattr(self._descriptor)[_OUTPUT_FLAGS] & termios.OPOST
        except termios.error:
            return False


def flush_output() -> None:
    """Write out what Python holds back, before something else writes to the same descriptors."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
