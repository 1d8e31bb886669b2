"""What the parts of the supervisor share."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from local_proxy.intercept.kernel import Listener, Threads
from local_proxy.intercept.machine import Machine
from local_proxy.intercept.reactor import Reactor
from local_proxy.intercept.sockets import Peers

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
"""No descriptor can be had."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Shared by all that answer calls."""

    listener: Listener
    reactor: Reactor
    threads: Threads
    peers: Peers
    machine: Machine
    say: Callable[[str], None]
    """Says a line to the user, once."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A connect that waits for its answer."""

    id: int
    handle: socket.socket
    """A duplicate of its socket."""
    raw: bytes
    """The address that it named, as it did."""
