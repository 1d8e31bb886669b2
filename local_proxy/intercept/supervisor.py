"""Answers the command's calls: receive, read the memory, see that it is still the caller's, take the socket, act, answer.

It runs in a thread of its own and never waits: a call that has to (the gateway's queue is full, the agent is asked) is put
aside, others go on. What can't be understood is the kernel's to answer; what may not be read fails, unless told otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local_proxy.intercept.addresses import LONGEST, Endpoint, UnixPath, family, with_port
from local_proxy.intercept.datagrams import Datagrams
from local_proxy.intercept.dial import Dialer
from local_proxy.intercept.exact import Exact
from local_proxy.intercept.filter import PLACES, Architecture, Call
from local_proxy.intercept.kernel import Listener, Notification, Threads
from local_proxy.intercept.limbo import disconnect
from local_proxy.intercept.listeners import Listeners
from local_proxy.intercept.listening import Moves
from local_proxy.intercept.machine import Fail, Machine, Pass, ToGateway, ToResolver, ToSink, Transport
from local_proxy.intercept.memory import write_name
from local_proxy.intercept.placing import Placer, unfence
from local_proxy.intercept.reactor import Reactor
from local_proxy.intercept.sending import Sender, read_address
from local_proxy.intercept.sink import Sink
from local_proxy.intercept.sockets import CLOSED, Peers, asked, tcp_state, transport
from local_proxy.intercept.tools import EXHAUSTED, Caller, Tools

_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})
_LEAVING = frozenset({Call.SOCKET, Call.CONNECT, Call.SENDTO, Call.SENDMSG, Call.SENDMMSG})
"""Calls that would go past the mesh if they were let go on unseen."""
_LOW = 0xFFFFFFFF
# Lengths of an Internet address, and of the storage that many pass whole.
_INTERNET_LENGTHS = frozenset({16, 24, 28, LONGEST})
_MOST_LINES = 1024

Answered = Callable[[str], None]
Ask = Callable[[str, str, Answered], None]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where sockets are redirected to, on loopback."""

    gateway: int
    dns_udp: int
    dns_tcp: int


class Supervisor:
    """The thread that answers.

    Args:
        listener: of the command's filter; closed at the end.
        threads: of the command.
        architecture: of this machine.
        machine: what decides.
        ports: where to.
        ask: asks the agent about a target and a name; the last argument is to be called, from any thread and within a second
            or so, with the reason why it refuses, or nothing.
        tell: says a line to the user; called from the thread.
        opaque_fail: whether the connects of processes that can't be looked into fail, or pass as they are.
        answers: where Envoy says what became of connections, if connects are exact: a Unix socket that listens; it is closed.
        moves: where ports of the command's that are taken here have been moved to; written by the thread.
        listened: called from the thread when a socket of the command's has begun to listen.
        placed: the numbers of UDP sockets, as the filter has them.
    """

    def __init__(
        self,
        listener: Listener,
        threads: Threads,
        architecture: Architecture,
        machine: Machine,
        ports: Ports,
        *,
        ask: Ask,
        tell: Callable[[str], None],
        opaque_fail: bool = True,
        answers: socket.socket | None = None,
        moves: Moves | None = None,
        listened: Callable[[], None] = lambda: None,
        placed: range = PLACES,
    ) -> None:
        self._listener = listener
        self._threads = threads
        self._machine = machine
        self._ports = ports
        self._tell = tell
        self._told: set[str] = set()
        self._opaque_fail = opaque_fail
        self._reactor = Reactor()
        self._peers = Peers()
        self._peers.ports |= {ports.gateway, ports.dns_udp, ports.dns_tcp}
        tools = Tools(listener, self._reactor, threads, self._peers, machine, self._say)
        self._dialer = Dialer(tools, ask)
        self._datagrams = Datagrams(tools, ports.dns_udp)
        self._exact = None if answers is None else Exact(tools, ports.gateway, answers)
        self._sink = Sink(tools)
        sender = Sender(tools, self._datagrams)
        self._listeners = Listeners(tools, Moves() if moves is None else moves, listened)
        handlers = {
            Call.SOCKET: Placer(tools, placed, machine.udp).create,
            Call.CONNECT: self._connect,
            Call.SENDTO: sender.sendto,
            Call.SENDMSG: sender.message,
            Call.SENDMMSG: sender.messages,
            Call.RECVFROM: self._datagrams.receive,
            Call.RECVMSG: self._datagrams.receive_message,
            Call.RECVMMSG: self._datagrams.receive_messages,
            Call.GETPEERNAME: self._getpeername,
            Call.BIND: self._listeners.bind,
            Call.LISTEN: self._listeners.listen,
            Call.GETSOCKNAME: self._listeners.getsockname,
        }
        if self._exact is not None:
            handlers[Call.GETSOCKOPT] = self._exact.getsockopt
        self._handlers = {architecture.calls[call]: (call, handler) for call, handler in handlers.items()}
        self._thread = threading.Thread(target=self._run, name="hairpin-intercept", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._reactor.watch(self._listener.fileno(), select.EPOLLIN, self._on_call)
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, and end; calls of what is left of the command fail with ENOSYS from now on."""
        self._reactor.stop()
        self._thread.join()
        self._reactor.close()

    def _run(self) -> None:
        try:
            self._reactor.run()
        finally:
            self._dialer.close()
            if self._exact is not None:
                self._exact.close()
            self._datagrams.close()
            self._sink.close()
            self._listener.close()
            self._threads.close()

    def _on_call(self, events: int) -> None:
        if not events & select.EPOLLIN:  # the last process with the filter has ended
            self._reactor.forget(self._listener.fileno())
            return
        notification = self._listener.receive()
        if notification is None:
            return
        call, handler = self._handlers.get(notification.number, (None, None))
        if handler is None:
            self._listener.resume(notification.id)
            return
        try:
            handler(notification)
        except OSError as error:
            if error.errno in _FORBIDDEN and call in (Call.CONNECT, Call.SENDTO):
                self._opaque(notification, call)
            elif error.errno in EXHAUSTED and call in _LEAVING:
                self._exhausted(notification)
            else:  # EFAULT, EBADF, ENOTSOCK: the kernel finds the same; ESRCH: nobody waits
                self._listener.resume(notification.id)
        except Exception:
            self._listener.answer(notification.id, error=errno.EACCES)
            raise

    def _connect(self, notification: Notification) -> None:
        descriptor, pointer, length, *_ = notification.arguments
        raw, address = read_address(notification.tid, pointer, length & _LOW)
        moved = self._listeners.whereto(address)
        if moved is None and self._machine.local(address):
            self._listener.resume(notification.id)
            return
        if not self._listener.valid(notification.id):
            return
        handle = self._threads.socket(notification.tid, descriptor & _LOW, tcp=True)
        try:
            state = tcp_state(handle)
            if state is None:
                handle = asked(handle)
            elif state != CLOSED:
                self._listener.resume(notification.id)  # EISCONN, EALREADY
                handle.close()
                return
            kept = self._connect_socket(notification, handle, raw, address, moved)
        except BaseException:
            handle.close()
            raise
        if not kept:
            handle.close()

    def _connect_socket(
        self,
        notification: Notification,
        handle: socket.socket,
        raw: bytes,
        address: Endpoint | UnixPath | None,
        moved: int | None,
    ) -> bool:
        """Whether the socket is kept, to be closed later."""
        spoken = transport(handle)
        if self._exact is not None and (error := self._exact.error(handle)):
            disconnect(handle)
            self._listener.answer(notification.id, error=error)  # of the connect before, as the kernel does
            return False
        if isinstance(address, Endpoint) and family(raw) != handle.family:
            self._listener.resume(notification.id)  # EAFNOSUPPORT
            return False
        if moved is not None and spoken is Transport.TCP:
            self._dialer.moved(Caller(notification.id, handle, raw), with_port(raw, moved))
            return True
        outcome = self._machine.connect(address, spoken, time.monotonic())
        match outcome:
            case Pass():
                if spoken is Transport.UDP:
                    unfence(handle)
                self._listener.resume(notification.id)
            case Fail(error, line):
                self._say(line)
                self._listener.answer(notification.id, error=error)
            case ToResolver() if spoken is Transport.UDP:
                self._datagrams.connect(notification, handle, raw)
            case ToResolver():
                self._dialer.dial(Caller(notification.id, handle, raw), self._ports.dns_tcp, None)
                return True
            case ToSink() if isinstance(address, Endpoint):
                self._sink.connect(notification, handle, raw, address)
            case ToGateway(exact=True) if (
                isinstance(address, Endpoint) and self._exact is not None and self._exact.can(handle)
            ):
                self._exact.connect(notification, Caller(notification.id, handle, raw), address, outcome)
                return True
            case ToGateway() if isinstance(address, Endpoint):
                self._dialer.gateway(Caller(notification.id, handle, raw), self._ports.gateway, address, outcome)
                return True
        return False

    def _getpeername(self, notification: Notification) -> None:
        if not self._peers:
            self._listener.resume(notification.id)
            return
        descriptor, pointer, length_pointer, *_ = notification.arguments
        if not self._listener.valid(notification.id):
            return
        with self._threads.socket(notification.tid, descriptor & _LOW) as handle:
            meant = self._peers.meant(handle)
            if meant is None or not self._peers.ours(handle.getpeername()):
                self._listener.resume(notification.id)
                return
        if write_name(notification.tid, pointer, length_pointer, meant):
            self._listener.answer(notification.id)
        else:
            self._listener.resume(notification.id)

    def _opaque(self, notification: Notification, call: Call) -> None:
        """A process that we may not look into: a setuid program's, or one that has forbidden it (PR_SET_DUMPABLE)."""
        length = notification.arguments[2 if call is Call.CONNECT else 5] & _LOW
        if not self._opaque_fail or length not in _INTERNET_LENGTHS:
            self._listener.resume(notification.id)
            return
        name = "a process"
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{notification.tid}/comm").read_text().strip()
        self._say(f"{name} lets nobody see where it connects to, so its connections are refused (EACCES)")
        self._listener.answer(notification.id, error=errno.EACCES)

    def _exhausted(self, notification: Notification) -> None:
        """We can't have one more descriptor, for which the call would have to be let go past us."""
        self._say(
            "hairpin has no descriptors left for the command's connections, so they are refused (ENOBUFS): "
            "raise the hard limit of this shell (ulimit -Hn)"
        )
        self._listener.answer(notification.id, error=errno.ENOBUFS)

    def _say(self, line: str) -> None:
        """Say a line, unless it was said before."""
        if line and line not in self._told and len(self._told) < _MOST_LINES:
            self._told.add(line)
            self._tell(line)
