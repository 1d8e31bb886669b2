"""The system calls of supervision, by ctypes: Python has none of them.

seccomp_unotify(2) has the rules: a notification's buffer must be zeroed, and what was read of the caller's memory is only the
caller's if the notification is valid afterwards (the caller may have died, and its ID be another's).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections import OrderedDict
from typing import NamedTuple

from local_proxy.intercept.filter import Architecture

_PIDFD_THREAD = os.O_EXCL  # since 6.9
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, since 6.6
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_PLACEMENT = struct.Struct("=QIIII")  # struct seccomp_notif_addfd
_AT_NUMBER, _AND_ANSWER = 1, 2  # SECCOMP_ADDFD_FLAG_SETFD; _SEND, since 5.14
_SO_COOKIE = 57
_MOST_THREADS = 256
_LONGEST_NAME = 128  # struct sockaddr_storage


def _ioctl(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("!") << 8 | number


_RECEIVE = _ioctl(3, 0, _NOTIFICATION.size)
_SEND = _ioctl(3, 1, _RESPONSE.size)
_ID_VALID = _ioctl(1, 2, 8)
_PLACE = _ioctl(1, 3, _PLACEMENT.size)
_SET_FLAGS = _ioctl(1, 4, 8)

_libc = ctypes.CDLL(None, use_errno=True)


class Notification(NamedTuple):
    """A call that waits for its answer."""

    id: int
    tid: int
    """The thread's ID, as seen here; 0 if it can't be."""
    number: int
    arguments: tuple[int, ...]
    """As registers hold them: 64 bits each, unsigned."""


class Listener:
    """The descriptor on which the kernel reports calls. Closing it lets all calls, pending and later ones, fail with ENOSYS."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise

    def fileno(self) -> int:
        """For polling."""
        return self._descriptor

    def receive(self) -> Notification | None:
        """The next call; None if its caller has died or been interrupted. Waits if there is none."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        identity, tid, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        return Notification(identity, tid, number, tuple(arguments))

    def valid(self, identity: int) -> bool:
        """Whether a call still waits: only then what was read of its caller's memory was its caller's."""
        try:
            fcntl.ioctl(self._descriptor, _ID_VALID, struct.pack("=Q", identity))
        except OSError:
            return False
        return True

    def answer(self, identity: int, value: int = 0, error: int = 0) -> None:
        """Let a call return a value, or fail with an errno."""
        self._send(identity, value, -error, 0)

    def resume(self, identity: int) -> None:
        """Let the kernel execute a call as if nobody had asked."""
        self._send(identity, 0, 0, _CONTINUE)

    def place(self, identity: int, descriptor: int, number: int | None, *, close_on_exec: bool) -> None:
        """Let a call return a duplicate of a descriptor of ours.

        Args:
            identity: the call's.
            descriptor: ours.
            number: what it is to be in the caller, in the place of what may have it; None for the lowest that is free.
            close_on_exec: the caller's wish.

        Raises:
            OSError: EBADF if the caller may not have so high a number, EMFILE if no more; then the call still waits.
        """
        flags = 0 if number is None else _AT_NUMBER
        wish = os.O_CLOEXEC if close_on_exec else 0

        def ask(flags: int) -> int:
            packed = bytearray(_PLACEMENT.pack(identity, flags, descriptor, number or 0, wish))
            placed: int = fcntl.ioctl(self._descriptor, _PLACE, packed)
            return placed

        try:
            ask(flags | _AND_ANSWER)
        except OSError as error:
            if error.errno == errno.EINVAL:
                self.answer(identity, value=ask(flags))
            elif error.errno != errno.ENOENT:  # its caller has died
                raise

    def close(self) -> None:
        """Stop listening."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _send(self, identity: int, value: int, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._descriptor, _SEND, _RESPONSE.pack(identity, value, error, flags))
        except OSError as refusal:
            if refusal.errno != errno.ENOENT:  # its caller has died
                raise


class Threads:
    """Descriptors of the command's threads, duplicated into this process.

    Args:
        architecture: of this machine.
    """

    def __init__(self, architecture: Architecture) -> None:
        self._number = architecture.pidfd_getfd
        self._pidfds: OrderedDict[int, int] = OrderedDict()
        self._processes: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        """Processes of the threads whose pidfd is their process's, before Linux 6.9: it outlives the thread."""

    def descriptor(self, tid: int, descriptor: int) -> int:
        """A duplicate of a thread's descriptor.

        Raises:
            OSError: EBADF if it has none of that number, ESRCH if it is gone, EPERM if we may not.
        """
        for _ in range(2):
            pidfd = self._pidfds.get(tid)
            if pidfd is not None and self._left(tid):
                self._forget(tid)
                pidfd = None
            if pidfd is None:
                pidfd = self._open(tid)
            found = _libc.syscall(self._number, pidfd, descriptor, 0)
            if found >= 0:
                return int(found)
            if (error := ctypes.get_errno()) != errno.ESRCH:
                break
            # Of a thread that is gone; its ID may be another's now.
            self._forget(tid)
        raise OSError(error, os.strerror(error))

    def process(self, tid: int) -> int:
        """The ID of a thread's process; the thread's own if it is gone."""
        found = self._processes.get(tid)
        if found is None:
            with contextlib.suppress(OSError):
                found = _process(tid)
            if len(self._processes) >= _MOST_THREADS:
                self._processes.clear()
            self._processes[tid] = found = found or tid
        return found

    def again(self, tid: int, process: int, descriptor: int, number: int) -> socket.socket | None:
        """A duplicate of the socket that had a descriptor, by the `cookie` that it had; None if it is not there any more.

        Args:
            tid: the thread that had it, which may be gone.
            process: its process.
            descriptor: its number there.
            number: the cookie.
        """
        others: tuple[int, ...] = ()
        with contextlib.suppress(OSError):
            others = tuple(int(name) for name in os.listdir(f"/proc/{process}/task") if int(name) != tid)  # noqa: PTH208
        for one in (tid, *others):
            try:
                handle = self.socket(one, descriptor)
            except OSError as error:
                if error.errno == errno.ESRCH:  # they share descriptors: another one still has them
                    continue
                return None
            if cookie(handle) == number:
                return handle
            handle.close()
            return None
        return None

    def socket(self, tid: int, descriptor: int, *, tcp: bool = False) -> socket.socket:
        """A duplicate of a thread's socket.

        Args:
            tid: the thread's ID.
            descriptor: its number there.
            tcp: take it for TCP without asking for its type and protocol; `sockets.tcp_state` tells, and `sockets.asked` asks.

        Raises:
            OSError: see `descriptor`; ENOTSOCK.
        """
        duplicate = self.descriptor(tid, descriptor)
        kind, protocol = (socket.SOCK_STREAM, socket.IPPROTO_TCP) if tcp else (-1, -1)
        try:
            return socket.socket(-1, kind, protocol, duplicate)
        except OSError:
            os.close(duplicate)
            raise

    def close(self) -> None:
        """Forget them all."""
        while self._pidfds:
            os.close(self._pidfds.popitem()[1])

    def _open(self, tid: int) -> int:
        while len(self._pidfds) >= _MOST_THREADS:
            self._forget(next(iter(self._pidfds)))
        try:
            pidfd = os.pidfd_open(tid, _PIDFD_THREAD)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            process = _process(tid)
            pidfd = os.pidfd_open(process)
            self._groups[tid] = process
        self._pidfds[tid] = pidfd
        return pidfd

    def _left(self, tid: int) -> bool:
        """Whether what we have is of a process that has no such thread any more: its ID may be another's."""
        process = self._groups.get(tid)
        return process is not None and not os.path.exists(f"/proc/{process}/task/{tid}")  # noqa: PTH110 - at every call

    def _forget(self, tid: int) -> None:
        os.close(self._pidfds.pop(tid))
        self._processes.pop(tid, None)
        self._groups.pop(tid, None)


def _process(tid: int) -> int:
    with open(f"/proc/{tid}/status", "rb") as status:  # noqa: PTH123
        group = next(line for line in status if line.startswith(b"Tgid:"))
    return int(group.split()[1])


def bind_raw(handle: socket.socket, raw: bytes) -> int:
    """bind(2) with an address as it is: 0 or an errno."""
    return ctypes.get_errno() if _libc.bind(handle.fileno(), raw, len(raw)) else 0


def connect_raw(handle: socket.socket, raw: bytes) -> int:
    """connect(2) with an address as it is: 0 or an errno."""
    return ctypes.get_errno() if _libc.connect(handle.fileno(), raw, len(raw)) else 0


def listen_raw(handle: socket.socket, backlog: int) -> int:
    """listen(2) with a backlog as the register has it: 0 or an errno."""
    return ctypes.get_errno() if _libc.listen(handle.fileno(), ctypes.c_int(backlog)) else 0


def own_name(handle: socket.socket) -> bytes:
    """getsockname(2)'s address as it is; nothing if it fails."""
    room = ctypes.c_uint(_LONGEST_NAME)
    buffer = ctypes.create_string_buffer(_LONGEST_NAME)
    if _libc.getsockname(handle.fileno(), buffer, ctypes.byref(room)):
        return b""
    return buffer.raw[: room.value]


def cookie(handle: socket.socket) -> int:
    """The kernel's own number of a socket, the same for all its descriptors."""
    (number,) = struct.unpack("=Q", handle.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))
    return int(number)
