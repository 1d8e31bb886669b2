"""Ports that are taken on this machine are moved, and the command believes in its own: the decisions alone. Pure.

A port is *believed* by the command; the *real* one is where its socket is bound. They differ when the believed one was held by
a process that is none of the command's, or is a privileged one. Once moved, a port stays moved to the same real one, also when
the command closes its listener and opens it anew: whoever was told the real port still finds it, and the kernel itself judges
whether two of the command's sockets may share it (SO_REUSEPORT, SO_REUSEADDR, IPV6_V6ONLY), as it would on the believed one.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from typing import Protocol

from local_proxy.intercept.addresses import IPAddress

MOST_SOCKETS = 4096
"""Of the command's bound sockets, so many are remembered, the latest."""


class Holder(Enum):
    """Who has a port that can't be bound."""

    OURS = "a process of the command"
    STRANGER = "another process"
    NOBODY = "no process that can be seen: it has just gone, has not begun to listen, or left connections behind"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the kernel said to a bind."""

    error: int
    port: int = 0
    """The port that it gave, if it is no failure."""


class Binding(Protocol):
    """A socket that the command wants to bind, to an address that stays the same."""

    def attempt(self, port: int) -> Attempt:
        """Bind it to a port; 0 is any free one. After a failure it can be tried again."""

    def holder(self, port: int) -> Holder:
        """Who has a port, so that the socket can't."""

    def debugs(self, port: int) -> bool:
        """Whether it is a debugger's port, where the caller's is looked for by its number."""


@dataclass(frozen=True, slots=True)
class OwnSocket:
    """A socket that a process of the command has bound."""

    inode: int
    address: IPAddress
    port: int
    dual: bool = False
    """Whether it is an IPv6 socket that takes IPv4 as well."""

    def excludes(self, other: OwnSocket) -> bool:
        """Whether both can't be bound to one port, unless by options that let them share it."""
        if self.address.version == other.address.version:
            return self.address == other.address or self.address.is_unspecified or other.address.is_unspecified
        six = other if isinstance(self.address, IPv4Address) else self
        return six.dual and six.address.is_unspecified


@dataclass(slots=True)
class Moves:
    """Which ports are moved whereto. Written by one thread; any may read."""

    _real: Mapping[int, int] = field(default_factory=dict)
    _believed: Mapping[int, int] = field(default_factory=dict)
    _native: set[int] = field(default_factory=set)
    _sockets: dict[int, OwnSocket] = field(default_factory=dict)
    _privileged: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self._believed)

    def real(self, port: int) -> int | None:
        """Where a port that the command believes in has been moved to; None if it has not been."""
        return self._real.get(port)

    def believed(self, port: int) -> int:
        """What the command takes a port for that one of its sockets is bound to: the port itself, unless it was moved."""
        return self._believed.get(port, port)

    def bind(self, port: int, binding: Binding) -> int:
        """Bind a socket where it can be bound: 0, or the errno that the command gets.

        Args:
            port: the one that it wants.
            binding: the socket.
        """
        moved = self._real.get(port)
        if moved is not None:
            attempt, holder = _patiently(binding, moved)
            if attempt.error != errno.EADDRINUSE or holder is Holder.OURS:
                return attempt.error
        attempt, holder = _patiently(binding, port)
        if attempt.error and (holder is Holder.OURS or (holder is Holder.NOBODY and port in self._native)):
            return attempt.error
        if not attempt.error:
            self._settle(attempt.port)
        elif attempt.error not in (errno.EADDRINUSE, errno.EACCES) or binding.debugs(port):
            return attempt.error
        else:
            return self._move(port, attempt.error, binding)
        return 0

    def remember(self, own: OwnSocket) -> None:
        """A socket of the command's is bound, to its real port."""
        self._sockets.pop(own.inode, None)
        self._sockets[own.inode] = own
        while len(self._sockets) > MOST_SOCKETS:
            del self._sockets[next(iter(self._sockets))]

    def rivals(self, wanted: OwnSocket) -> frozenset[int]:
        """The inodes of the command's sockets that, if they still live, keep another from being bound."""
        return frozenset(
            own.inode
            for own in self._sockets.values()
            if own.inode != wanted.inode and own.port == wanted.port and own.excludes(wanted)
        )

    def forget(self, inodes: Iterable[int]) -> None:
        """These don't live any more."""
        for inode in inodes:
            self._sockets.pop(inode, None)

    def why(self, believed: int) -> str:
        """Why a port was moved, as what follows `listens on 80`."""
        return "which needs root here" if believed in self._privileged else "which is taken here"

    def _move(self, port: int, refusal: int, binding: Binding) -> int:
        attempt = binding.attempt(0)
        if attempt.error:
            return refusal
        self._settle(attempt.port)
        if refusal == errno.EACCES:
            self._privileged.add(port)
        else:
            self._privileged.discard(port)
        self._native.discard(port)
        self._real = {**self._real, port: attempt.port}
        self._believed = {**self._believed, attempt.port: port}
        return 0

    def _settle(self, port: int) -> None:
        """A real port is bound for what it is: nothing else is believed of it any more."""
        self._native.add(port)
        if port in self._believed or port in self._real:
            self._believed = {real: believed for real, believed in self._believed.items() if real != port}
            self._real = {believed: real for believed, real in self._real.items() if port not in (believed, real)}


def _patiently(binding: Binding, port: int) -> tuple[Attempt, Holder | None]:
    """Try a port, twice if its holder has gone in between; and who has it, if that is why not."""
    attempt, holder = binding.attempt(port), None
    if attempt.error == errno.EADDRINUSE:
        holder = binding.holder(port)
        if holder is Holder.NOBODY:
            attempt = binding.attempt(port)
    return attempt, holder
