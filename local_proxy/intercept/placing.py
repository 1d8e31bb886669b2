"""UDP sockets of ours in the place of the program's own: with a number that the filter knows, and fenced in.

A filter can't see the address of a sendmsg, and reporting every stream's would cost each of their writes a change of process. It
does see the descriptor: so socket(2) of UDP is answered with a descriptor of `PLACES`, where streams have none.

What leaves these numbers (dup, a descriptor that is passed on), and what finds no place, has the fence: the kernel itself
answers ENETUNREACH to a datagram that would leave this machine's own links, in IPv6 this machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from local_proxy.intercept.choices import UdpPolicy
from local_proxy.intercept.kernel import Notification
from local_proxy.intercept.tools import EXHAUSTED, Tools

_LOW = 0xFFFFFFFF
_IPV6_UNICAST_IF = 76
_INTERFACE = struct.Struct("!I")


class Placer:
    """Answers socket(2).

    Args:
        tools: shared with the others.
        places: the numbers.
        udp: whether what is not seen may pass.
    """

    def __init__(self, tools: Tools, places: range, udp: UdpPolicy) -> None:
        self._tools = tools
        self._places = places
        self._fences = udp is UdpPolicy.REFUSE
        self._network = _network("self")

    def create(self, notification: Notification) -> None:
        """A socket of UDP."""
        domain, kind, protocol, *_ = (argument & _LOW for argument in notification.arguments)
        listener = self._tools.listener
        if not self._is_here(notification.tid) or not listener.valid(notification.id):
            listener.resume(notification.id)
            return
        try:
            made = socket.socket(domain, socket.SOCK_DGRAM | kind & socket.SOCK_NONBLOCK, protocol)
        except OSError as error:
            if error.errno in EXHAUSTED:  # it is we who have no descriptors left
                raise
            listener.resume(notification.id)  # no IPv6: the kernel says the same
            return
        with made:
            try:
                if self._fences:
                    fence(made)
                self._place(notification, made, close_on_exec=bool(kind & socket.SOCK_CLOEXEC))
            except OSError:  # the caller has no descriptors left
                listener.resume(notification.id)

    def _place(self, notification: Notification, made: socket.socket, *, close_on_exec: bool) -> None:
        place = self._tools.listener.place
        number = self._free(notification.tid)
        try:
            place(notification.id, made.fileno(), number, close_on_exec=close_on_exec)
        except OSError as error:
            if number is None or error.errno != errno.EBADF:
                raise
            place(notification.id, made.fileno(), None, close_on_exec=close_on_exec)

    def _is_here(self, tid: int) -> bool:
        """Whether a socket of ours is of the same network as the thread's own would be."""
        try:
            return _network(str(tid)) == self._network
        except PermissionError:  # a process that lets nobody look has not left it, as far as we know
            return True
        except OSError:
            return False

    def _free(self, tid: int) -> int | None:
        """A place that a process has free, if it has so few descriptors that no other thread takes it meanwhile.

        Those of a process that has many may come to the places at any time: an answer there would replace one.
        """
        try:
            used = {int(name) for name in os.listdir(f"/proc/{tid}/fd")}  # noqa: PTH208 - at every socket
        except OSError:
            return None
        if len(used) > self._places.start // 2:
            return None
        return next((number for number in self._places if number not in used), None)


def _network(process: str) -> int:
    return os.stat(f"/proc/{process}/ns/net").st_ino  # noqa: PTH116 - at every socket


def fence(made: socket.socket) -> None:
    """Have the kernel refuse what a socket sends beyond this machine's links; by IPv6 beyond this machine."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    if made.family == socket.AF_INET6:  # which heeds that for IPv4's addresses alone
        with contextlib.suppress(OSError):  # no loopback interface: nothing is reached at all
            loopback = _INTERFACE.pack(socket.if_nametoindex("lo"))
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_IF, loopback)


def unfence(handle: socket.socket) -> None:
    """Let a socket send everywhere: a destination of its is not the mesh's."""
    if not handle.getsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE):
        return
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 0)
    if handle.family == socket.AF_INET6:
        handle.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_IF, _INTERFACE.pack(0))
