"""Becomes the command: `python -I -S launcher.py DESCRIPTOR`, where DESCRIPTOR is a stream socket to hairpin.

It is told the filter, installs it and says where its listener is; hairpin takes that (pidfd_getfd, as it will take sockets),
looks whether it can read this process's memory (process_vm_readv, likewise), and then sends what to mount and what to execute.
The process stays the same, so signals, debuggers, the exit code and the terminal meet the command alone. It runs as a script
and imports nothing but what is built in and ctypes: the command waits for it.

Frames of hairpin's: a length (u32) and marshal's bytes. First the filter: number, instructions (none: no filter). Then any number
of ("mount", folder of mounter.py, its arguments); ("execute", program, arguments, environment). Ours: one byte, and numbers:
    L listener, address   the filter is in force; PROBE lies at that address
    F errno, step         it is not: a step of STEPS failed
    M 0, 0                all is mounted
    N errno, step         nothing is: a step of mounter.STEPS failed, about its argument number step >> 8
    X errno               the command can't be executed; there is no such frame, but the end, when it can
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # the module signal builds enums, which takes longer than all of this
import ctypes
import marshal
import os
import struct
import sys

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

PROBE = b"hairpin reads the memory of the command it supervises"
STEPS = ("prctl(PR_SET_NO_NEW_PRIVS)", "seccomp(SECCOMP_SET_MODE_FILTER)")
FRAME = struct.Struct("=cQQ")
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_SPECULATES, _NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 2, 1 << 3, 1 << 5
_CANNOT_EXECUTE = 126


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main() -> None:
    """Install the filter, and execute what hairpin says."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # not where whoever started us ignores it
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Ctrl-C while the command is waited for ends it without a word
    filter_number, instructions = _receive(descriptor)
    probe = ctypes.create_string_buffer(PROBE)
    if instructions:
        try:
            listener = install(filter_number, instructions)
        except OSError as error:
            _send(descriptor, b"F", error.errno or 0, STEPS.index(str(error.strerror)))
            return
        _send(descriptor, b"L", listener, ctypes.addressof(probe))
    frame = _receive(descriptor)
    while frame[0] == "mount":
        _mount(descriptor, frame[1], frame[2])
        frame = _receive(descriptor)
    _, program, arguments, environment = frame
    for ignored_by_python in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(ignored_by_python, _signal.SIG_DFL)
    try:
        os.execve(program, arguments, environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        _send(descriptor, b"X", error.errno or 0, 0)
        os._exit(_CANNOT_EXECUTE)


def install(number: int, instructions: bytes) -> int:
    """Install a filter for this process: its listener.

    Args:
        number: of seccomp(2).
        instructions: the filter.

    Raises:
        OSError: a step of STEPS, its strerror, failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), STEPS[0])
    program = _Program(len(instructions) // 8, instructions)
    listener = -1
    # Before 5.16 a filter switches off speculation past stores, for programs that are not trusted; this one is.
    # WAIT_KILLABLE_RECV (5.19): a signal whose handler restarts calls can't break off a call that is being answered.
    for flags in (_SPECULATES | _NEW_LISTENER | _WAIT_KILLABLE_RECV, _SPECULATES | _NEW_LISTENER):
        listener = libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(program))
        if listener >= 0:
            return int(listener)
    raise OSError(ctypes.get_errno(), STEPS[1])


def _mount(descriptor: int, folder: str, arguments: Any) -> None:
    sys.path.append(folder)
    import mounter  # type: ignore[import-not-found] # noqa: PLC0415 - few commands have mounts

    sys.path.remove(folder)
    try:
        mounter.mount_all_or_none(arguments)
    except mounter.FailedError as error:
        _send(descriptor, b"N", error.number, error.step | error.argument << 8)
    else:
        _send(descriptor, b"M", 0, 0)


def _receive(descriptor: int) -> Any:
    (length,) = struct.unpack("=I", _read(descriptor, 4))
    return marshal.loads(_read(descriptor, length))  # noqa: S302 - of our own parent


def _read(descriptor: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = os.read(descriptor, length - len(data))
        if not chunk:  # hairpin has gone, or wants nothing executed
            os._exit(_CANNOT_EXECUTE)
        data += chunk
    return data


def _send(descriptor: int, kind: bytes, first: int, second: int) -> None:
    try:  # noqa: SIM105 - contextlib takes as long as all else
        os.write(descriptor, FRAME.pack(kind, first, second))
    except OSError:
        pass


if __name__ == "__main__":
    main()
