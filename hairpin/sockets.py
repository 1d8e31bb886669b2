"""TCP connections that notice when the other end, or the way to it, is gone without a word: after a sleep, a change of network.

A watch is silent for minutes and a call is small, so neither would find out by itself: Linux tries again for a quarter of an
hour, and an idle connection is not tried at all.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

IDLE_SECONDS = 4
"""Of silence, after which the other end is asked whether it is there."""
AGAIN_SECONDS = 2
"""Between two such questions."""
GONE_SECONDS = 10
"""Without an answer to those, or to what was sent, the connection is dead."""
_OPTIONS = (
    ("TCP_KEEPIDLE", IDLE_SECONDS),
    ("TCP_KEEPALIVE", IDLE_SECONDS),  # what macOS calls it
    ("TCP_KEEPINTVL", AGAIN_SECONDS),
    ("TCP_KEEPCNT", (GONE_SECONDS - IDLE_SECONDS) // AGAIN_SECONDS),
    ("TCP_USER_TIMEOUT", 1000 * GONE_SECONDS),  # Linux: what was sent counts too, in milliseconds
)


def watched_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for one of `getaddrinfo`'s answers, as aiohttp's `socket_factory` is asked for one."""
    family, kind, protocol = address[:3]
    found = socket.socket(family, kind, protocol)
    found.setblocking(False)
    watch(found)
    return found


def watch(found: socket.socket) -> None:
    """Have the kernel ask the other end, as often as this system lets us say."""
    with contextlib.suppress(OSError):  # a kernel that has no such option: then it is as it was
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS:
            if hasattr(socket, name):
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
