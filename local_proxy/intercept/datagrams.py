"""UDP: questions to name servers, and datagrams that are refused.

A program may compare an answer's source with whom it asked (musl, c-ares): where the kernel reports the call that receives it,
the answer is received here and its source replaced. A refused destination is refused when something is sent to it: many
programs connect a UDP socket only to learn their own address (getaddrinfo does, for every address that it sorts).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable

from local_proxy.intercept.addresses import Endpoint
from local_proxy.intercept.kernel import Notification, cookie, read_memory, write_memory
from local_proxy.intercept.sockets import LOOPBACK, connect_here
from local_proxy.intercept.tools import Tools

_LOW = 0xFFFFFFFF
_LONGEST_DATAGRAM = 65536
_RECEIVE_SECONDS = 5.0
"""How long a blocking receive is held for an answer; then the kernel has it."""
_MOST_SOCKETS = 4096
_MOST_VECTORS = 16
_MESSAGE = struct.Struct(
    "=QI4xQQQQi4x"
)  # struct msghdr: name, its length, vectors, their number, control, its length, flags


class Datagrams:
    """Answers calls of UDP sockets.

    Args:
        tools: shared with the others.
        port: our name server's.
    """

    def __init__(self, tools: Tools, port: int) -> None:
        self._tools = tools
        self._port = port
        self._sink: socket.socket | None = None
        self._closed: socket.socket | None = None
        self._sunk: OrderedDict[int, tuple[int, int, int, Endpoint]] = OrderedDict()
        self._held: dict[int, tuple[int, socket.socket]] = {}

    # Questions to name servers

    def connect(self, notification: Notification, handle: socket.socket, raw: bytes) -> None:
        """Connect a socket to our name server."""
        error = connect_here(handle, self._port)
        if not error:
            self._tools.peers.remember(handle, raw)
        self._tools.listener.answer(notification.id, error=error)

    def send(
        self, notification: Notification, handle: socket.socket, raw: bytes, data: tuple[int, int], flags: int
    ) -> None:
        """Send to our name server what was meant for another."""
        pointer, size = data
        if size >= _LONGEST_DATAGRAM:
            self._tools.listener.answer(notification.id, error=errno.EMSGSIZE)
            return
        question = read_memory(notification.tid, pointer, size) if size else b""
        host = LOOPBACK if handle.family == socket.AF_INET else f"::ffff:{LOOPBACK}"
        try:
            sent = handle.sendto(question, flags | socket.MSG_DONTWAIT, (host, self._port))
        except BlockingIOError:
            sent = size  # datagrams may be lost; the program will ask again
        except OSError as error:
            self._tools.listener.answer(notification.id, error=error.errno or errno.EIO)
            return
        self._tools.peers.remember(handle, raw)
        self._tools.listener.answer(notification.id, value=sent)

    def receive(self, notification: Notification) -> None:
        """Recvfrom with room for an address."""
        descriptor, pointer, size, flags, source, source_length = notification.arguments

        def deliver(data: bytes, length: int, meant: bytes) -> None:
            (room,) = struct.unpack("=i", read_memory(notification.tid, source_length, 4))
            write_memory(notification.tid, pointer, data)
            write_memory(notification.tid, source, meant[: max(room, 0)])
            write_memory(notification.tid, source_length, struct.pack("=i", len(meant)))
            self._tools.listener.answer(notification.id, value=length)

        self._receive(notification, descriptor & _LOW, min(size, _LONGEST_DATAGRAM), flags & _LOW, deliver)

    def receive_message(self, notification: Notification) -> None:
        """Recvmsg, of musl's resolver."""
        descriptor, pointer, flags, *_ = notification.arguments
        if not self._tools.peers:
            self._tools.listener.resume(notification.id)
            return
        header = read_memory(notification.tid, pointer, _MESSAGE.size)
        name, room, vectors, count, _, _, _ = _MESSAGE.unpack(header)
        if not name or not 0 < count <= _MOST_VECTORS:
            self._tools.listener.resume(notification.id)
            return
        parts = list(struct.iter_unpack("=QQ", read_memory(notification.tid, vectors, 16 * count)))

        def deliver(data: bytes, length: int, meant: bytes) -> None:
            rest = data
            for base, size in parts:
                write_memory(notification.tid, base, rest[:size])
                rest = rest[size:]
            write_memory(notification.tid, name, meant[:room])
            flags = socket.MSG_TRUNC if length > len(data) else 0
            filled = _MESSAGE.pack(name, len(meant), vectors, count, 0, 0, flags)
            write_memory(notification.tid, pointer + 8, filled[8:12])
            write_memory(notification.tid, pointer + 40, filled[40:52])
            self._tools.listener.answer(notification.id, value=length)

        size = min(sum(size for _, size in parts), _LONGEST_DATAGRAM)
        self._receive(notification, descriptor & _LOW, size, flags & _LOW, deliver)

    def _receive(
        self,
        notification: Notification,
        descriptor: int,
        size: int,
        flags: int,
        deliver: Callable[[bytes, int, bytes], None],
    ) -> None:
        if not self._tools.peers or not self._tools.listener.valid(notification.id):
            self._tools.listener.resume(notification.id)
            return
        handle = self._tools.threads.socket(notification.tid, descriptor)
        meant = self._tools.peers.meant(handle) if handle.type == socket.SOCK_DGRAM else None
        if meant is None:
            handle.close()
            self._tools.listener.resume(notification.id)
            return
        waits = os.get_blocking(handle.fileno()) and not flags & socket.MSG_DONTWAIT

        def attempt() -> bool:
            """Whether the call is answered."""
            buffer = bytearray(size)
            try:
                length, source = handle.recvfrom_into(buffer, size, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                if waits:
                    return False
                self._tools.listener.answer(notification.id, error=errno.EAGAIN)
                return True
            except OSError as error:
                self._tools.listener.answer(notification.id, error=error.errno or errno.EIO)
                return True
            raw = meant if self._tools.peers.ours(source) else _raw(handle, source)
            deliver(bytes(buffer[: min(length, size)]), length, raw)
            return True

        self._hold(notification.id, handle, attempt)

    def _hold(self, identity: int, handle: socket.socket, attempt: Callable[[], bool]) -> None:
        """Try until it is answered, or the time is over."""
        with_handle = handle.fileno()

        def over() -> None:
            self._tools.reactor.forget(with_handle)
            self._held.pop(with_handle, None)
            handle.close()

        def late() -> None:
            over()
            self._tools.listener.resume(identity)

        def ready(_: int) -> None:
            try:
                answered = attempt()
            except BaseException:
                over()
                raise
            if answered:
                over()

        try:
            answered = attempt()
        except BaseException:
            handle.close()
            raise
        if answered:
            handle.close()
            return
        self._held[with_handle] = (identity, handle)
        self._tools.reactor.watch(with_handle, select.EPOLLIN, ready)
        self._tools.reactor.until(with_handle, _RECEIVE_SECONDS, late)

    # Datagrams that are refused

    def sink(self, notification: Notification, handle: socket.socket, raw: bytes, address: Endpoint) -> None:
        """Connect a socket to where it is refused once it sends."""
        error = connect_here(handle, self._open_sink())
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
        """Give everything up."""
        for identity, handle in self._held.values():
            handle.close()
            self._tools.listener.answer(identity, error=errno.ENETDOWN)
        self._held.clear()
        for used in (self._sink, self._closed):
            if used is not None:
                used.close()

    def _open_sink(self) -> int:
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
            data, source = self._sink.recvfrom(_LONGEST_DATAGRAM)
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


def _raw(handle: socket.socket, name: tuple[str, int] | tuple[str, int, int, int]) -> bytes:
    packed = socket.inet_pton(handle.family, name[0].partition("%")[0])
    head = struct.pack("=H", handle.family) + struct.pack(">H", name[1])
    if handle.family == socket.AF_INET:
        return head + packed + bytes(8)
    flow, scope = (name[2], name[3]) if len(name) == 4 else (0, 0)  # noqa: PLR2004
    return head + struct.pack(">I", flow) + packed + struct.pack("=I", scope)
