"""Free ports for listeners that an Envoy binds a little later."""

from __future__ import annotations

import errno
import random
import socket
from typing import TYPE_CHECKING

from hairpin.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below the ports that kernels hand out to clients (32768 and up on Linux, 49152 on macOS): a connection of someone else's
# can't take a port between our choosing it and Envoy's binding it.
FIRST, LAST = 20_000, 29_999


def free_ports(host: str = "127.0.0.1") -> Iterator[int]:
    """Ports that nobody listens on now, from a random place on, so that two meshes seldom try the same.

    Raises:
        UnavailableError: none is left.
    """
    start = random.randrange(FIRST, LAST)  # noqa: S311 # not a secret
    for port in (*range(start, LAST + 1), *range(FIRST, start)):
        if is_free(host, port):
            yield port
    raise UnavailableError(f"no free port between {FIRST} and {LAST} on {host}")


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
