"""Other processes' memory, by process_vm_readv(2): Python has no call for it.

What was read is only the caller's if its notification is valid afterwards (`Listener.valid` in `local_proxy.intercept.kernel`).
"""

from __future__ import annotations

import ctypes
import os
import struct

_LONGEST_NAME = 128  # struct sockaddr_storage

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


for _call in ("process_vm_readv", "process_vm_writev"):
    if hasattr(_libc, _call):
        getattr(_libc, _call).restype = ctypes.c_ssize_t


# A socket address is read for every connect: made once, and used by the supervisor's thread alone.
_name = ctypes.create_string_buffer(_LONGEST_NAME)
_there = _Vector()
_NAME_HERE, _THERE = ctypes.byref(_Vector(ctypes.addressof(_name), _LONGEST_NAME)), ctypes.byref(_there)


def read_memory(tid: int, address: int, length: int) -> bytes:
    """What lies at an address of another process; less than `length` if not all of it is mapped.

    Raises:
        OSError: EFAULT if nothing is mapped there, EPERM if we may not, ESRCH.
    """
    if length <= _LONGEST_NAME:
        _there.base, _there.length = address, length
        copied = _checked(_libc.process_vm_readv(tid, _NAME_HERE, 1, _THERE, 1, 0))
        return _name.raw[:copied]
    buffer = ctypes.create_string_buffer(length)
    copied = _copy(_libc.process_vm_readv, tid, buffer, address, length)
    return buffer.raw[:copied]


def write_memory(tid: int, address: int, data: bytes) -> None:
    """Write to an address of another process.

    Raises:
        OSError: EFAULT if nothing is mapped there, EPERM if we may not, ESRCH.
    """
    if data:
        _copy(_libc.process_vm_writev, tid, ctypes.create_string_buffer(data, len(data)), address, len(data))


def _copy(
    call: ctypes._NamedFuncPointer, tid: int, buffer: ctypes.Array[ctypes.c_char], address: int, length: int
) -> int:
    local, remote = _Vector(ctypes.addressof(buffer), length), _Vector(address, length)
    return _checked(call(tid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def write_name(tid: int, pointer: int, length_pointer: int, raw: bytes) -> bool:
    """Give another process a socket address, as getsockname(2) and getpeername(2) do; whether its room makes sense.

    Raises:
        OSError: see `write_memory`.
    """
    (room,) = struct.unpack("=i", read_memory(tid, length_pointer, 4))
    if room < 0:
        return False
    write_memory(tid, pointer, raw[:room])
    write_memory(tid, length_pointer, struct.pack("=i", len(raw)))
    return True
