"""`--connect exact`: a connect is answered when the agent has dialled, with the error that it got if it could not.

A socket that blocks is connected to the gateway, as ever, and its call is held until Envoy says what became of it. One that does
not block waits in limbo (`limbo`) while a socket of ours is connected to the gateway; when that has an answer, the program's is
connected to ours, and bytes are passed on (`relay`), or it fails. Nothing of a program's waits in between, and we keep no
duplicate: what it closes is closed.

Of errors the kernel makes ECONNREFUSED alone for us; others are told where a program looks for them: getsockopt(SO_ERROR), and
a second connect.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import OrderedDict
from dataclasses import dataclass

from local_proxy.intercept.addresses import Endpoint
from local_proxy.intercept.kernel import Notification, cookie
from local_proxy.intercept.limbo import Limbo, disconnect
from local_proxy.intercept.machine import Fail, ToGateway
from local_proxy.intercept.memory import read_memory, write_memory
from local_proxy.intercept.relay import Relay
from local_proxy.intercept.sockets import (
    SYN_SENT,
    connect_here,
    endpoint,
    multipath,
    tcp_state,
    timeout,
    without_fast_open,
)
from local_proxy.intercept.tools import Caller, Tools
from local_proxy.intercept.verdicts import Question, Verdicts

MOST_SECONDS = 30.0
"""How long an answer is waited for. The agent's own patience, with all of its attempts, is shorter."""
_MOST_ERRORS = 1024
_LOW = 0xFFFFFFFF
_INT = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A socket of the program's in limbo."""

    tid: int
    process: int
    descriptor: int
    number: int
    """The kernel's own, its cookie."""
    here: Endpoint
    """The socket's own end."""


class Exact:
    """Answers connects when their destination does. Takes their handles over, and closes them.

    Args:
        tools: shared with the others.
        gateway: its port.
        answers: where Envoy says what became of a connection: a Unix socket that listens.
    """

    def __init__(self, tools: Tools, gateway: int, answers: socket.socket) -> None:
        self._tools = tools
        self._gateway = gateway
        self._verdicts = Verdicts(tools, gateway, answers)
        self._limbo = Limbo()
        self._waiting: dict[Endpoint, _Waiting] = {}
        self._completing: set[socket.socket] = set()
        self._relay = Relay()
        self._errors: OrderedDict[int, int] = OrderedDict()

    def can(self, handle: socket.socket) -> bool:
        """Whether a socket can wait. One of multipath TCP can't without blocking: no simultaneous open completes it."""
        return os.get_blocking(handle.fileno()) or not multipath(handle)

    def connect(self, notification: Notification, caller: Caller, address: Endpoint, to: ToGateway) -> None:
        """Connect a socket that is not connected yet."""
        if os.get_blocking(caller.handle.fileno()):
            self._hold(caller, address, to)
        else:
            self._defer(notification, caller, address, to)

    def error(self, handle: socket.socket) -> int:
        """The error that a socket's connect ended with, if the kernel has another one; told once. 0 if there is none."""
        return self._errors.pop(cookie(handle), 0) if self._errors else 0

    def getsockopt(self, notification: Notification) -> None:
        """SO_ERROR. It waits for us, so it comes after a failure that is being brought about, never amid it."""
        descriptor, _, _, pointer, length_pointer, *_ = notification.arguments
        listener = self._tools.listener
        if not self._errors or not listener.valid(notification.id):
            listener.resume(notification.id)
            return
        with self._tools.threads.socket(notification.tid, descriptor & _LOW) as handle:
            (room,) = _INT.unpack(read_memory(notification.tid, length_pointer, _INT.size))
            error = self.error(handle) if room >= 0 else 0
            if not error:
                listener.resume(notification.id)
                return
            handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # it counts as read
        written = _INT.pack(error)[:room]
        write_memory(notification.tid, pointer, written)
        write_memory(notification.tid, length_pointer, _INT.pack(len(written)))
        listener.answer(notification.id)

    def close(self) -> None:
        """Answer what waits."""
        self._verdicts.close()
        for made in self._completing:
            made.close()
        self._relay.close()
        self._limbo.close()

    # Sockets that block

    def _hold(self, caller: Caller, address: Endpoint, to: ToGateway) -> None:
        handle = caller.handle

        def settle(fail: Fail | None) -> None:
            if fail is None:
                connect_here(
                    handle, self._gateway
                )  # as it does not block here, this one tells the kernel that it is done
                self._tools.peers.remember(handle, caller.raw)
            else:
                disconnect(handle)  # it can be connected anew, and remembers no error, as after any failure
            self._answer(caller, fail.error if fail else 0)

        os.set_blocking(handle.fileno(), False)
        self._verdicts.ask(Question(handle, address, to, settle), _patience(handle))

    def _answer(self, caller: Caller, error: int) -> None:
        os.set_blocking(caller.handle.fileno(), True)
        caller.handle.close()
        self._tools.listener.answer(caller.id, error=error)

    # Sockets that don't

    def _defer(self, notification: Notification, caller: Caller, address: Endpoint, to: ToGateway) -> None:
        handle = caller.handle
        without_fast_open(handle)
        ours = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # first, since there may be no descriptor left
        try:
            error = self._limbo.enter(handle)
        except BaseException:
            ours.close()
            raise
        if error == errno.EINPROGRESS:
            self._tools.peers.ports |= self._limbo.ports
            self._tools.peers.remember(handle, caller.raw)
            tid = notification.tid
            waiting = _Waiting(
                tid,
                self._tools.threads.process(tid),
                notification.arguments[0] & _LOW,
                cookie(handle),
                endpoint(handle.getsockname()),
            )
            self._waiting[waiting.here] = waiting  # whoever was there before has gone, since its port was free
            ours.setblocking(False)
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            question = Question(ours, address, to, lambda fail: self._told(waiting, ours, fail))
            self._verdicts.ask(question, MOST_SECONDS)
        else:
            ours.close()
        handle.close()
        self._tools.listener.answer(caller.id, error=error)

    def _told(self, waiting: _Waiting, ours: socket.socket, fail: Fail | None) -> None:
        if self._waiting.get(waiting.here) is not waiting:  # closed, and its port is another's
            ours.close()
            return
        del self._waiting[waiting.here]
        handle = self._tools.threads.again(waiting.tid, waiting.process, waiting.descriptor, waiting.number)
        if handle is not None and not _still(handle, waiting.here):  # disconnected; it may wait for another answer
            handle.close()
            handle = None
        if handle is None and not self._limbo.waits(waiting.here):
            ours.close()
        elif fail is None or handle is None:
            if not self._complete(waiting, ours, reset=fail is not None) and handle is not None:
                self._limbo.refuse(handle)
        else:
            ours.close()
            if fail.error != errno.ECONNREFUSED:
                self._errors[waiting.number] = fail.error
                while len(self._errors) > _MOST_ERRORS:
                    self._errors.popitem(last=False)
            self._limbo.refuse(handle)
        if handle is not None:
            handle.close()

    def _complete(self, waiting: _Waiting, ours: socket.socket, *, reset: bool) -> bool:
        """Connect the program's socket to one of ours, or reset it, if it is nowhere to be found to be refused.

        Whether that has begun.
        """
        try:
            other = self._limbo.leave(waiting.here)
        except OSError:
            ours.close()
            return False
        descriptor = other.fileno()
        self._completing.add(ours)
        self._completing.add(other)

        def ready(_: int) -> None:
            self._tools.reactor.forget(descriptor)
            self._completing -= {ours, other}
            if reset:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            if reset or other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):  # it was closed meanwhile
                other.close()
                ours.close()
            else:
                self._relay.add(other, ours)

        self._tools.reactor.watch(descriptor, select.EPOLLOUT, ready)
        return True


def _still(handle: socket.socket, here: Endpoint) -> bool:
    """Whether a socket still waits, with the same end of its own."""
    return tcp_state(handle) == SYN_SENT and endpoint(handle.getsockname()) == here


def _patience(handle: socket.socket) -> float:
    """How long a blocking connect may take: SO_SNDTIMEO shortens it (socket(7))."""
    return min(timeout(handle, socket.SO_SNDTIMEO) or MOST_SECONDS, MOST_SECONDS)
