"""Where Unix sockets can be: their paths are short, and a temporary folder's may be long already."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hairpin.errors import InvalidFieldError

MAX_SOCKET_PATH: Final = 107 if sys.platform == "linux" else 103
"""Bytes that the path of a unix socket may have: `sun_path` without its terminating zero (unix(7), unix(4) of the BSDs)."""
_RANDOM = 8
"""Characters that mkdtemp appends."""


def fits(path: Path) -> bool:
    """Whether a socket can have this path."""
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH


def temporary_directory(prefix: str, room: int, environ: Mapping[str, str] | None = None) -> Path:
    """A new folder, the user's alone, with room for sockets: in the usual place, else in the user's run folder or /tmp.

    Args:
        prefix: how its name begins.
        room: characters that a socket's path may have below it.
        environ: for XDG_RUNTIME_DIR.

    Raises:
        InvalidFieldError: all of those are too long, or can't be written.
    """
    environ = os.environ if environ is None else environ
    usual = tempfile.gettempdir()
    for place in (usual, environ.get("XDG_RUNTIME_DIR"), "/tmp"):  # noqa: S108 - mkdtemp makes it 0700
        if place and fits(Path(place, f"{prefix}{'x' * _RANDOM}", "x" * room)):
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    longest = MAX_SOCKET_PATH - len(prefix) - _RANDOM - room - 2
    problem = f"is no place for unix sockets (its path may have {longest} bytes, and it must be writable), nor is /tmp"
    raise InvalidFieldError("TMPDIR", usual, problem, "set TMPDIR to a shorter one")


@contextlib.contextmanager
def socket_directory(directory: Path, *names: str) -> Iterator[Path]:
    """Where sockets of these names can be: in the directory, or where that is too long in a new one that is removed again.

    Raises:
        InvalidFieldError: as `temporary_directory` does.
    """
    if all(fits(directory.absolute() / name) for name in names):
        yield directory.absolute()
        return
    elsewhere = temporary_directory("hairpin-sockets-", max(map(len, names)))
    try:
        yield elsewhere
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
