"""Messages of another process, as sendmsg(2) and recvmsg(2) have them: struct msghdr, and what it points to."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass

from local_proxy.intercept.memory import read_memory, write_memory

HEADER = struct.Struct("=QI4xQQQQi4x")
"""struct msghdr: name, its length, vectors, their number, control, its length, flags."""
MANY = struct.Struct(f"={HEADER.size}sI4x")
"""struct mmsghdr: one of several messages, and how many bytes of it were sent or received."""
MOST_VECTORS = 1024  # UIO_MAXIOV
LONGEST_DATAGRAM = 65536
_LONGEST_CONTROL = 4096
_VECTOR = struct.Struct("=QQ")
_ROOM_AT, _CONTROL_LENGTH_AT, _RECEIVED_AT = 8, 40, HEADER.size

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as its owner describes it."""

    tid: int
    """Whose."""
    pointer: int
    name: int
    """Where the address is or shall be; null if there is none."""
    room: int
    """Bytes of it."""
    vectors: int
    count: int
    control: int
    control_length: int

    @classmethod
    def read(cls, tid: int, pointer: int) -> Message:
        """What lies there.

        Raises:
            OSError: EFAULT if it can't be read, and so on: see `read_memory`.
        """
        name, room, vectors, count, control, control_length, _ = HEADER.unpack(_all(tid, pointer, HEADER.size))
        return cls(tid, pointer, name, room, vectors, count, control, control_length)

    @property
    def makes_sense(self) -> bool:
        """Whether it is as short as a datagram can be."""
        return self.count <= MOST_VECTORS and self.control_length <= _LONGEST_CONTROL

    def parts(self) -> list[tuple[int, int]]:
        """Where its bytes are or shall be: pointers and lengths."""
        if not 0 < self.count <= MOST_VECTORS:
            return []
        return list(_VECTOR.iter_unpack(_all(self.tid, self.vectors, _VECTOR.size * self.count)))

    def data(self) -> bytes:
        """Its bytes, as far as a datagram can have them."""
        data = b""
        for pointer, length in self.parts():
            if length and len(data) < LONGEST_DATAGRAM:
                data += _all(self.tid, pointer, min(length, LONGEST_DATAGRAM))
        return data

    def fill(self, data: bytes, length: int, source: bytes) -> None:
        """Write what was received: bytes, how many there were, and whose they are. There is no control data."""
        rest = data
        for pointer, size in self.parts():
            write_memory(self.tid, pointer, rest[:size])
            rest = rest[size:]
        write_memory(self.tid, self.name, source[: self.room])
        write_memory(self.tid, self.pointer + _ROOM_AT, struct.pack("=I", len(source)))
        flags = socket.MSG_TRUNC if length > len(data) else 0
        write_memory(self.tid, self.pointer + _CONTROL_LENGTH_AT, struct.pack("=Qi", 0, flags))

    def count_bytes(self, length: int) -> None:
        """Write how many bytes of it were sent or received, if it is one of several."""
        write_memory(self.tid, self.pointer + _RECEIVED_AT, struct.pack("=I", length))

    def send(self, handle: socket.socket, raw: bytes, flags: int) -> int:
        """Send it as it is to an address: the bytes that were sent.

        Raises:
            OSError: the kernel's.
        """
        data, control = self.data(), b""
        if self.control_length:
            control = _all(self.tid, self.control, self.control_length)
        vector = ctypes.create_string_buffer(data, len(data))
        name, more = ctypes.create_string_buffer(raw, len(raw)), ctypes.create_string_buffer(control, len(control))
        vectors = ctypes.create_string_buffer(_VECTOR.pack(ctypes.addressof(vector), len(data)))
        header = HEADER.pack(
            ctypes.addressof(name), len(raw), ctypes.addressof(vectors), 1, ctypes.addressof(more), len(control), 0
        )
        sent: int = _libc.sendmsg(handle.fileno(), header, ctypes.c_int(flags))
        if sent < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return sent


def _all(tid: int, pointer: int, length: int) -> bytes:
    """Memory that is wholly there."""
    data = read_memory(tid, pointer, length)
    if len(data) < length:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return data
