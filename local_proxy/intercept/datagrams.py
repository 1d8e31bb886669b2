"""UDP: questions to name servers come to ours.

A program may compare an answer's source with whom it asked (musl, c-ares): where the kernel reports the call that receives it,
the answer is received here and its source replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Callable

from local_proxy.intercept.kernel import Notification
from local_proxy.intercept.memory import read_memory, write_memory
from local_proxy.intercept.messages import LONGEST_DATAGRAM, Message
from local_proxy.intercept.sockets import LOOPBACK, connect_here, held_to_device, timeout
from local_proxy.intercept.tools import Tools

_LOW = 0xFFFFFFFF
_MSG_ERRQUEUE = 0x2000
RECEIVE_SECONDS = 5.0
"""How long a blocking receive is held for an answer; then the kernel has it."""


class Datagrams:
    """Answers calls of sockets that ask name servers.

    Args:
        tools: shared with the others.
        port: our name server's.
    """

    def __init__(self, tools: Tools, port: int) -> None:
        self._tools = tools
        self._port = port
        self._held: dict[int, tuple[int, socket.socket]] = {}

    def connect(self, notification: Notification, handle: socket.socket, raw: bytes) -> None:
        """Connect a socket to our name server."""
        error = connect_here(handle, self._port)
        if not error:
            self._tools.peers.remember(handle, raw)
        self._tools.listener.answer(notification.id, error=error)

    def send(self, handle: socket.socket, raw: bytes, question: bytes, flags: int) -> int:
        """Send to our name server what was meant for another: the bytes that were sent.

        Raises:
            OSError: as the program shall see it.
        """
        if len(question) >= LONGEST_DATAGRAM:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        if held_to_device(handle):
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        host = LOOPBACK if handle.family == socket.AF_INET else f"::ffff:{LOOPBACK}"
        sent = len(question)
        # Datagrams may be lost; the program will ask again.
        with contextlib.suppress(BlockingIOError):
            sent = handle.sendto(question, flags | socket.MSG_DONTWAIT, (host, self._port))
        self._tools.peers.remember(handle, raw)
        return sent

    def receive(self, notification: Notification) -> None:
        """Recvfrom with room for an address."""
        descriptor, pointer, size, flags, source, source_length = notification.arguments

        def deliver(data: bytes, length: int, meant: bytes) -> None:
            (room,) = struct.unpack("=i", read_memory(notification.tid, source_length, 4))
            write_memory(notification.tid, pointer, data)
            write_memory(notification.tid, source, meant[: max(room, 0)])
            write_memory(notification.tid, source_length, struct.pack("=i", len(meant)))
            self._tools.listener.answer(notification.id, value=length)

        self._receive(notification, descriptor & _LOW, min(size, LONGEST_DATAGRAM), flags & _LOW, deliver)

    def receive_message(self, notification: Notification) -> None:
        """Recvmsg; musl's resolver reads answers by it."""
        self._receive_message(notification, notification.arguments[2], lambda _, length: length)

    def receive_messages(self, notification: Notification) -> None:
        """Recvmmsg, of which the first message alone is received: who waits for more asks again."""

        def count(message: Message, length: int) -> int:
            message.count_bytes(length)
            return 1

        self._receive_message(notification, notification.arguments[3], count)

    def _receive_message(self, notification: Notification, flags: int, returned: Callable[[Message, int], int]) -> None:
        descriptor, pointer, *_ = notification.arguments
        if not self._tools.peers:
            self._tools.listener.resume(notification.id)
            return
        message = Message.read(notification.tid, pointer)
        if not message.name or not message.makes_sense or flags & _MSG_ERRQUEUE:
            self._tools.listener.resume(notification.id)
            return

        def deliver(data: bytes, length: int, meant: bytes) -> None:
            message.fill(data, length, meant)
            self._tools.listener.answer(notification.id, value=returned(message, length))

        size = min(sum(size for _, size in message.parts()), LONGEST_DATAGRAM)
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
            """Whether the call is answered, or nobody waits for it: its thread's ID may be another program's by now."""
            if not self._tools.listener.valid(notification.id):
                return True
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
        """Try until it is answered, or the time is over: the program's, or ours, after which the kernel goes on."""
        with_handle = handle.fileno()
        patience = timeout(handle, socket.SO_RCVTIMEO)

        def over() -> None:
            self._tools.reactor.forget(with_handle)
            self._held.pop(with_handle, None)
            handle.close()

        def late() -> None:
            over()
            if 0 < patience <= RECEIVE_SECONDS:
                self._tools.listener.answer(identity, error=errno.EAGAIN)
            else:
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
        self._tools.reactor.until(with_handle, min(patience or RECEIVE_SECONDS, RECEIVE_SECONDS), late)

    def close(self) -> None:
        """Answer what waits."""
        for identity, handle in self._held.values():
            handle.close()
            self._tools.listener.answer(identity, error=errno.ENETDOWN)
        self._held.clear()


def _raw(handle: socket.socket, name: tuple[str, int] | tuple[str, int, int, int]) -> bytes:
    packed = socket.inet_pton(handle.family, name[0].partition("%")[0])
    head = struct.pack("=H", handle.family) + struct.pack(">H", name[1])
    if handle.family == socket.AF_INET:
        return head + packed + bytes(8)
    flow, scope = (name[2], name[3]) if len(name) == 4 else (0, 0)  # noqa: PLR2004
    return head + struct.pack(">I", flow) + packed + struct.pack("=I", scope)
