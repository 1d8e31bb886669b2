"""The command's servers: bind and listen are done on a duplicate of its socket, so that a port can be moved."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from local_proxy.debuggers import debugger_ports
from local_proxy.intercept.addresses import LONGEST, SHORTEST, Endpoint, family, parse, with_port
from local_proxy.intercept.kernel import Notification, bind_raw, listen_raw, own_name
from local_proxy.intercept.listening import Attempt, Holder, Moves, OwnSocket
from local_proxy.intercept.machine import Transport
from local_proxy.intercept.memory import read_memory, write_name
from local_proxy.intercept.sockets import endpoint, transport
from local_proxy.intercept.tools import Tools
from local_proxy.sockets import inodes_of, listening_sockets, loopback_of

_LOW = 0xFFFFFFFF


class Listeners:
    """Answers bind, listen and getsockname of TCP sockets, and connects to ports that were moved.

    Args:
        tools: shared with the others.
        moves: what was moved.
        listened: called when a socket has begun to listen; from the supervisor's thread.
    """

    def __init__(self, tools: Tools, moves: Moves, listened: Callable[[], None]) -> None:
        self._tools = tools
        self._moves = moves
        self._listened = listened
        self._told: dict[int, int] = {}

    def bind(self, notification: Notification) -> None:
        """Bind to the port, or to another in its place."""
        descriptor, pointer, length, *_ = notification.arguments
        listener = self._tools.listener
        raw = b""
        if SHORTEST <= length & _LOW <= LONGEST:
            raw = read_memory(notification.tid, pointer, length & _LOW)
        address = parse(raw)
        if not isinstance(address, Endpoint):
            listener.resume(notification.id)
            return
        if not listener.valid(notification.id):
            return
        with self._tools.threads.socket(notification.tid, descriptor & _LOW) as handle:
            if transport(handle) is not Transport.TCP or family(raw) != handle.family:
                listener.resume(notification.id)
                return
            binding = _Binding(handle, raw, address, self._moves, notification.tid)
            error = self._moves.bind(address.port, binding)
            if not error:
                port = endpoint(handle.getsockname()).port
                self._moves.remember(binding.own(port))
                if self._moves.believed(port) != port:
                    self._tools.peers.moved.add(port)
        listener.answer(notification.id, error=error)

    def listen(self, notification: Notification) -> None:
        """Listen, and tell."""
        descriptor, backlog, *_ = notification.arguments
        listener = self._tools.listener
        if not listener.valid(notification.id):
            return
        with self._tools.threads.socket(notification.tid, descriptor & _LOW) as handle:
            if transport(handle) is not Transport.TCP:
                listener.resume(notification.id)
                return
            error = listen_raw(handle, backlog & _LOW)
            name = endpoint(handle.getsockname())
            if error == errno.EADDRINUSE:
                self._tell_late(notification.tid, handle, name)
        if not error:
            self._tell_moved(notification.tid, name)
            self._listened()
        listener.answer(notification.id, error=error)

    def getsockname(self, notification: Notification) -> None:
        """With the port that is believed, also for what a moved listener has accepted."""
        listener = self._tools.listener
        if not self._moves:
            listener.resume(notification.id)
            return
        descriptor, pointer, length_pointer, *_ = notification.arguments
        if not listener.valid(notification.id):
            return
        with self._tools.threads.socket(notification.tid, descriptor & _LOW) as handle:
            raw = own_name(handle) if transport(handle) is Transport.TCP else b""
        address = parse(raw)
        if not isinstance(address, Endpoint) or self._moves.believed(address.port) == address.port:
            listener.resume(notification.id)
            return
        changed = with_port(raw, self._moves.believed(address.port))
        if write_name(notification.tid, pointer, length_pointer, changed):
            listener.answer(notification.id)
        else:
            listener.resume(notification.id)

    def whereto(self, address: object) -> int | None:
        """The port that a connect to this machine is to be led to, if it means one that was moved."""
        if not self._moves or not isinstance(address, Endpoint):
            return None
        real = self._moves.real(address.port)
        return real if real is not None and _is_own(address) else None

    def _tell_moved(self, tid: int, name: Endpoint) -> None:
        believed = self._moves.believed(name.port)
        if believed == name.port or self._told.get(believed) == name.port:
            return
        self._told[believed] = name.port
        there = Endpoint(ip_address(loopback_of(str(name.address))), name.port)
        self._tools.say(f"{_process(tid)} listens on {believed}, {self._moves.why(believed)}: moved to {there}")

    def _tell_late(self, tid: int, handle: socket.socket, name: Endpoint) -> None:
        raw = own_name(handle)
        if _Binding(handle, raw, name, self._moves, tid).holder(name.port) is not Holder.OURS:
            self._tools.say(
                f"{_process(tid)} can't listen on {name.port}: another process began to while both had bound it, "
                "and a port that is bound can't be moved any more"
            )


class _Binding:
    """A socket that is being bound."""

    def __init__(self, handle: socket.socket, raw: bytes, address: Endpoint, moves: Moves, tid: int) -> None:
        self._handle = handle
        self._raw = raw
        self._address = address
        self._moves = moves
        self._tid = tid

    def attempt(self, port: int) -> Attempt:
        """Bind it to a port."""
        error = bind_raw(self._handle, with_port(self._raw, port))
        return Attempt(error) if error else Attempt(0, endpoint(self._handle.getsockname()).port)

    def holder(self, port: int) -> Holder:
        """Who has a port."""
        rivals = self._moves.rivals(self.own(port))
        listening = {found.inode for found in listening_sockets() if found.port == port}
        if rivals & listening:
            return Holder.OURS
        if rivals:  # they may be bound, and not listen yet
            living = rivals & _inodes_of_everyone()
            if living:
                return Holder.OURS
            self._moves.forget(rivals)
        return Holder.STRANGER if listening else Holder.NOBODY

    def debugs(self, port: int) -> bool:
        """Whether it is the port of the caller's debugger."""
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{self._tid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            pairs = Path(f"/proc/{self._tid}/environ").read_bytes().decode(errors="replace").split("\0")
            environment = {name: value for name, found, value in (pair.partition("=") for pair in pairs) if found}
            return port in debugger_ports(words, environment)
        return False

    def own(self, port: int) -> OwnSocket:
        """It, bound to a port."""
        dual = self._handle.family == socket.AF_INET6 and not self._handle.getsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
        )
        return OwnSocket(os.fstat(self._handle.fileno()).st_ino, self._address.address, port, dual=dual)


def _inodes_of_everyone() -> frozenset[int]:
    """The sockets of all processes that may be looked into."""
    return frozenset(
        inode for entry in Path("/proc").iterdir() if entry.name.isdigit() for inode in inodes_of(int(entry.name))
    )


def _is_own(address: Endpoint) -> bool:
    """Whether an address is this machine's: only such a one can be bound."""
    if address.address.is_loopback or address.address.is_unspecified:
        return True
    with socket.socket(socket.AF_INET if address.address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:  # noqa: PLR2004
        try:
            probe.bind((str(address.address), 0))
        except OSError:
            return False
    return True


def _process(tid: int) -> str:
    """The name of a thread's process."""
    with contextlib.suppress(OSError, StopIteration):
        with open(f"/proc/{tid}/status", "rb") as status:  # noqa: PTH123
            group = next(int(line.split()[1]) for line in status if line.startswith(b"Tgid:"))
        return Path(f"/proc/{group}/comm").read_text(errors="replace").strip()
    return "a process"
