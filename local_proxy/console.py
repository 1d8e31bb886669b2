"""What hairpin says while the command runs: whole lines on stderr, marked as ours."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import time
from collections.abc import Mapping

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_STANDARD_ERROR = 2
_OUTPUT_FLAGS = 1  # tcgetattr's list: iflag, oflag, …

MOST_CALLS = 50
"""Lines of calls in a burst; more are left out."""
CALLS_PER_SECOND = 10.0
"""Lines of calls that may follow."""


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
        with contextlib.suppress(OSError):
            os.write(self._descriptor, f"{prefix} {line}{end}".encode(errors="replace"))

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
