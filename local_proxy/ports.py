"""Which TCP port the service is on: the one that its process tree listens on, or the one that `--port` names.

Watched by reading the kernel's table (`local_proxy.sockets`), so that the process never sees a connection of ours. Where the
command's calls are intercepted, its listen is what makes us look, and a port that was moved counts as what the command
takes it for.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import psutil

from local_proxy.debuggers import debugger_ports, has_random_inspector
from local_proxy.inspector import inspector_port
from local_proxy.intercept.heard import Heard
from local_proxy.process_tree import ProcessTree
from local_proxy.sockets import ListeningSocket, has_ipv6_loopback, listening_sockets, loopback_of, sockets_of

EAGER_INTERVAL = 0.05
"""Seconds between two looks while something is expected to happen: after the start, and after a change."""
EAGER_SECONDS = 20.0
"""How long we look eagerly."""
CALM_INTERVAL = 0.1
"""Seconds between two looks otherwise: for so long may a request meet a process that has just stopped listening."""
SCAN_INTERVAL = 1.0
"""Seconds between two looks at the processes themselves while nobody on this machine opened or closed a port."""
_SHARE = 0.05
"""The share of one core that looking may take: a slow look is followed by a long pause."""
_CONNECT_SECONDS = 0.2
_KERNEL_TELLS_ALL: bool = sys.platform == "linux"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port that is listened on."""

    host: str
    """Where to connect to: a loopback address, unless the process listens on some other address alone."""
    port: int
    bound: str
    """The address as the process bound it: 127.0.0.1, ::1, 0.0.0.0, ::, …"""
    pid: int | None = None
    """Whose it is; None if it was found by its port alone."""
    process: str = ""
    """That process's name."""
    inode: int = 0
    """Tells sockets of one port apart, where the system does."""
    believed: int = 0
    """What the process takes the port for, where it was moved; else 0."""

    @property
    def known(self) -> int:
        """The port as the user and the process know it."""
        return self.believed or self.port


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look at the processes showed."""

    listener: Listener | None
    """The service's port; None while nothing listens."""
    others: tuple[Listener, ...] = ()
    """What else the process tree listens on, debuggers left out."""


class PortWatcher:
    """Finds the service's port and keeps an eye on it.

    Args:
        tree: the command's processes; None if the process was started by someone else.
        port: the port that the user named: then no other is taken, whoever listens on it.
        preferred: the target's port number; taken when it is among several.
        heard: what interception hears of the command's listeners.
        strangers: the inodes of sockets that listened before the command was started.
    """

    def __init__(
        self,
        tree: ProcessTree | None,
        *,
        port: int | None = None,
        preferred: int | None = None,
        heard: Heard | None = None,
        strangers: frozenset[int] = frozenset(),
    ) -> None:
        self._tree = tree
        self._port = port
        self._preferred = preferred
        self._heard = heard
        self._strangers = strangers
        self._current: Listener | None = None
        self._ipv6 = has_ipv6_loopback()
        self._listening: list[ListeningSocket] = []
        self._scanned = -SCAN_INTERVAL
        self._seen = Sighting(None)
        self._debuggers: dict[tuple[int, float], frozenset[int]] = {}

    def look(self) -> Sighting:
        """Look once. It takes milliseconds at most, and does not wait for anything."""
        listening = listening_sockets()
        now = time.monotonic()
        if listening != self._listening or now - self._scanned >= SCAN_INTERVAL:
            self._seen = self._scan(listening)
            self._listening, self._scanned = listening, now
        return self._seen

    def _scan(self, listening: list[ListeningSocket]) -> Sighting:
        candidates = self._tree_listeners(listening)
        if self._port is not None:
            # The command's own by whatever way, also what it was given and listened before it was there.
            own = [one for one in candidates if one.known == self._port]
            named = min(own, key=_own_rank) if own else self._named_listener(self._port, listening)
            others = [candidate for candidate in candidates if candidate.known != self._port]
        else:
            named = choose(candidates, self._current, self._preferred)
            others = [candidate for candidate in candidates if named is None or candidate.known != named.known]
        self._current = named
        distinct = {candidate.known: candidate for candidate in reversed(others)}
        return Sighting(named, tuple(distinct[port] for port in sorted(distinct)))

    async def changes(self) -> AsyncGenerator[Sighting, None]:
        """What is seen each time the service's port opens, closes or moves, or another port comes up beside it."""
        seen: tuple[tuple[str, int] | None, frozenset[int]] = (None, frozenset())
        eager_until = time.monotonic() + EAGER_SECONDS
        heard_until = 0.0
        while True:
            began = time.thread_time()
            sighting = self.look()
            cost = time.thread_time() - began  # what whoever takes the sighting does with it is not our doing
            listener = sighting.listener
            address = (listener.host, listener.port) if listener else None
            others = frozenset(other.known for other in sighting.others)
            if address != seen[0] or not others <= seen[1]:
                if address != seen[0]:
                    eager_until = time.monotonic() + EAGER_SECONDS
                yield sighting
            seen = (address, others)
            eager = listener is None and time.monotonic() < eager_until
            pause = max(EAGER_INTERVAL if eager else CALM_INTERVAL, cost / _SHARE)
            if self._heard is None:
                await asyncio.sleep(pause)
            elif await self._heard.wait(pause):
                # Each of many servers that open at once is not worth a look of its own.
                await asyncio.sleep(max(0.0, heard_until - time.monotonic()))
                heard_until = time.monotonic() + cost / _SHARE

    def _tree_listeners(self, listening: list[ListeningSocket]) -> list[Listener]:
        if self._tree is None:
            return []
        processes = {process.pid: process for process in self._tree.processes()}
        found = []
        for pid, sockets in sockets_of(processes, listening).items():
            if sockets:
                theirs = self._debugger_ports(processes[pid], sockets)
                name = _name(processes[pid])
                found += [self._listener(s, pid, name) for s in sockets if s.port not in theirs]
        return found

    def _listener(self, listening: ListeningSocket, pid: int | None = None, process: str = "") -> Listener:
        host = loopback_of(listening.host)
        if host == "::1" and listening.host == "::" and not self._ipv6:
            host = "127.0.0.1"  # a socket on :: takes IPv4 as well, unless told otherwise
        return Listener(
            host=host,
            port=listening.port,
            bound=listening.host,
            pid=pid,
            process=process,
            inode=listening.inode,
            believed=self._believed(listening.port) if pid is not None else 0,
        )

    def _believed(self, port: int) -> int:
        believed = self._heard.believed(port) if self._heard else port
        return believed if believed != port else 0

    def _debugger_ports(self, process: psutil.Process, sockets: Sequence[ListeningSocket]) -> frozenset[int]:
        # Asked only of a process that listens, and so has its final command line: read once.
        with contextlib.suppress(psutil.Error):
            key = (process.pid, process.create_time())
            if key not in self._debuggers:
                line, environment = process.cmdline(), _environment(process)
                self._debuggers[key] = debugger_ports(line, environment)
                if has_random_inspector(line, environment):
                    opened = sorted(sockets, key=lambda one: one.inode)
                    found = inspector_port((loopback_of(one.host), one.port) for one in opened)
                    self._debuggers[key] |= {found} if found else set()
            return self._debuggers[key]
        return frozenset()

    def _named_listener(self, port: int, listening: list[ListeningSocket]) -> Listener | None:
        there = [s for s in listening if s.port == port and s.inode not in self._strangers]
        if not there and not _KERNEL_TELLS_ALL:
            there = _connectable(port)
        found = sorted((self._listener(s) for s in there), key=_rank)
        return found[0] if found else None


def choose(candidates: Sequence[Listener], current: Listener | None, preferred: int | None) -> Listener | None:
    """The service's port among those that are listened on, the oldest first.

    The target's own port number is taken whenever it is there; else the one that was taken before; else the first one.
    """
    for port in (preferred, current and current.known):
        same = sorted((candidate for candidate in candidates if candidate.known == port), key=_rank)
        if same:
            return same[0]
    if not candidates:
        return None
    return min((candidate for candidate in candidates if candidate.known == candidates[0].known), key=_rank)


def _rank(listener: Listener) -> tuple[int, int]:
    # Of one port on several addresses: IPv4 before IPv6, and any loopback before an address of the network.
    hosts = ("127.0.0.1", "0.0.0.0", "::1", "::")  # noqa: S104 - compared with, not bound
    return (hosts.index(listener.bound) if listener.bound in hosts else len(hosts), listener.inode)


def _own_rank(listener: Listener) -> tuple[bool, int, int]:
    return (not listener.believed, *_rank(listener))


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _connectable(port: int) -> list[ListeningSocket]:
    """Where the kernel shows other users' sockets to nobody: who answers. Nothing is sent."""
    for host in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), socket.create_connection((host, port), _CONNECT_SECONDS):
            return [ListeningSocket(host, port)]
    return []
