"""Where a connect that may not wait does so all the same: a place on loopback that answers no SYN.

A listener whose queue is full drops SYNs, so that a socket which connects to it stays as it would on the way to a far host:
EINPROGRESS, not writable, EALREADY. It is answered by a socket of ours that is bound to the listener's own port and connects to
the other's: a TCP simultaneous open (RFC 9293, 3.5), after which the program's socket is connected and we have the other end. It
fails by being disconnected and connected to a port that is closed.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import NamedTuple

from local_proxy.intercept.addresses import Endpoint
from local_proxy.intercept.kernel import connect_raw
from local_proxy.intercept.sockets import LOOPBACK, connect_here

_DISCONNECT = bytes(16)  # AF_UNSPEC
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_SYN_SENT = "02"


class _Opened(NamedTuple):
    listener: socket.socket
    filling: socket.socket
    """What its queue is full of."""
    closed: socket.socket
    """Bound, and never listened on."""
    port: int
    """The listener's."""


class Limbo:
    """The place. Opened when it is first needed."""

    def __init__(self) -> None:
        self._opened: _Opened | None = None

    @property
    def ports(self) -> frozenset[int]:
        """Where sockets are connected to, as they see it."""
        opened = self._open()
        return frozenset({opened.port, opened.closed.getsockname()[1]})

    def enter(self, handle: socket.socket) -> int:
        """Connect a socket that does not block: EINPROGRESS, or an errno."""
        return connect_here(handle, self._open().port)

    def leave(self, here: Endpoint) -> socket.socket:
        """Begin to answer the socket that is bound there, by the other end, which does not block and is connected once writable.

        Raises:
            OSError: that can't be begun.
        """
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.bind((LOOPBACK, self._open().port))
            with contextlib.suppress(BlockingIOError):
                made.connect((str(here.address), here.port))
        except BaseException:
            made.close()
            raise
        return made

    def refuse(self, handle: socket.socket) -> None:
        """Have a socket's connect fail, with ECONNREFUSED."""
        disconnect(handle)
        connect_here(handle, self._open().closed.getsockname()[1])

    def waits(self, here: Endpoint) -> bool:
        """Whether a socket that is bound there still waits to be answered."""
        ends = (here.port, self._open().port)
        return any(found == ends for table in _TABLES for found in _syn_sent(table))

    def close(self) -> None:
        """What still waits is refused, when it sends its SYN again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            for used in (opened.listener, opened.filling, opened.closed):
                used.close()

    def _open(self) -> _Opened:
        if self._opened is None:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # `leave` binds the same port
            listener.bind((LOOPBACK, 0))
            listener.listen(0)
            filling = socket.create_connection(listener.getsockname())
            closed = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            closed.bind((LOOPBACK, 0))  # and so nobody else's
            self._opened = _Opened(listener, filling, closed, listener.getsockname()[1])
        return self._opened


def disconnect(handle: socket.socket) -> None:
    """Have a socket be as before its connect, without an error."""
    connect_raw(handle, _DISCONNECT)
    handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # a connection that was cut off leaves one


def _syn_sent(table: str) -> set[tuple[int, int]]:
    """Own and remote port of each socket that waits to be answered."""
    found = set()
    with contextlib.suppress(OSError):
        for line in Path(table).read_text().splitlines()[1:]:
            _, own, remote, state, *_ = line.split()
            if state == _SYN_SENT:
                found.add((int(own.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)))
    return found
