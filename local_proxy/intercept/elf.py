"""Which C library a program has, as far as it matters: musl's resolver needs a call reported that others use for streams."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

_MAGIC = b"\x7fELF"
_INTERPRETER, _NOTE = 3, 4  # PT_INTERP, PT_NOTE
_MOST_BYTES = 1 << 16
_HEADER = struct.Struct("=16sHHIQQQIHHH")
_SEGMENT = struct.Struct("=IIQQQQQQ")
_GO_NOTE = b"Go\0\0"


def reads_answers_by_recvmsg(program: str) -> bool:
    """Whether a program may have musl's resolver: it is linked to musl, or statically to something that is not Go.

    A script is what its interpreter is. What the program starts later is not looked at.
    """
    with contextlib.suppress(OSError, struct.error, ValueError):
        data = _start_of(program)
        if data.startswith(b"#!"):
            data = _start_of(data[2:].split(b"\n", 1)[0].split()[0].decode())
        if data.startswith(_MAGIC):
            segments = _segments(data)
            interpreter = segments.get(_INTERPRETER)
            if interpreter is None:
                return _GO_NOTE not in segments.get(_NOTE, b"")
            return b"ld-musl" in interpreter
    return False


def _start_of(program: str) -> bytes:
    with Path(program).open("rb") as file:
        return file.read(_MOST_BYTES)


def _segments(data: bytes) -> dict[int, bytes]:
    """The first bytes' interpreter and notes."""
    _, _, _, _, _, offset, _, _, _, size, number = _HEADER.unpack_from(data)
    found: dict[int, bytes] = {}
    for index in range(number):
        kind, _, start, _, _, length, _, _ = _SEGMENT.unpack_from(data, offset + index * size)
        if kind in (_INTERPRETER, _NOTE):
            found[kind] = found.get(kind, b"") + data[start : start + length]
    return found
