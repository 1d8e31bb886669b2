"""UDP that is refused when it sends, not when it connects: many programs connect a UDP socket only to learn their own address.

getaddrinfo does, for every address that it sorts. Such a socket is led to a sink on loopback; a datagram there has it connected
to a closed port and sent again, so that also a program which only waits for an answer learns it.
"""

from __future__ import annotations

import select
import socket
from collections import OrderedDict

from local_proxy.intercept.addresses import Endpoint
from local_proxy.intercept.kernel import Notification, cookie
from local_proxy.intercept.messages import LONGEST_DATAGRAM
from local_proxy.intercept.sockets import LOOPBACK, connect_here
from local_proxy.intercept.tools import Tools

_LOW = 0xFFFFFFFF
_MOST_SOCKETS = 4096


class Sink:
    """Takes datagrams that are refused.

    Args:
        tools: shared with the others.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._sink: socket.socket | None = None
        self._closed: socket.socket | None = None
        self._sunk: OrderedDict[int, tuple[int, int, int, Endpoint]] = OrderedDict()

    def connect(self, notification: Notification, handle: socket.socket, raw: bytes, address: Endpoint) -> None:
        """Connect a socket to where it is refused once it sends."""
        error = connect_here(handle, self._open())
        if not error:
            self._tools.peers.remember(handle, raw)
            port = handle.getsockname()[1]
            self._sunk.pop(port, None)
            descriptor = notification.arguments[0] & _LOW
            self._sunk[port] = (notification.tid, descriptor, cookie(handle), address)
            while len(self._sunk) > _MOST_SOCKETS:
                self._sunk.popitem(last=False)
        self._tools.listener.answer(notification.id, error=error)

    def close(self) -> None:
        """Give it up."""
        for used in (self._sink, self._closed):
            if used is not None:
                used.close()

    def _open(self) -> int:
        if self._sink is None:
            self._sink = _bound()
            # A port that is taken, and closed to all but one, which is itself: the kernel answers others "port unreachable".
            self._closed = _bound()
            self._closed.connect(self._closed.getsockname())
            self._tools.peers.ports |= {self._sink.getsockname()[1], self._closed.getsockname()[1]}
            self._tools.reactor.watch(self._sink.fileno(), select.EPOLLIN, self._on_sunk)
        port: int = self._sink.getsockname()[1]
        return port

    def _on_sunk(self, _: int) -> None:
        """Something was sent: refuse it, in such a way that also a program that waits for an answer learns it."""
        if self._sink is None or self._closed is None:
            return
        try:
            data, source = self._sink.recvfrom(LONGEST_DATAGRAM)
        except OSError:
            return
        sunk = self._sunk.pop(source[1], None)
        if sunk is None:
            return
        tid, descriptor, number, address = sunk
        self._tools.say(self._tools.machine.udp_line(address))
        try:
            with self._tools.threads.socket(tid, descriptor) as handle:
                if cookie(handle) == number and not connect_here(handle, self._closed.getsockname()[1]):
                    handle.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((LOOPBACK, 0))
    return made
