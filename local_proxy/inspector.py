"""Node's inspector on a random port: which of a process's ports it is, only it can say."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

_SECONDS = 1.0
_QUESTION = b"GET /json/version HTTP/1.0\r\nHost: localhost\r\n\r\n"
_ANSWER = b"Protocol-Version"
_ENOUGH = 4096


def inspector_port(addresses: Iterable[tuple[str, int]]) -> int | None:
    """The port of the first that answers as an inspector does (nodejs.org/en/learn/getting-started/debugging).

    It does so from a thread of its own, also while the program stands at a breakpoint. It opens before the program's
    own ports: asked in that order, none of those is.

    Args:
        addresses: host and port, the oldest first.
    """
    return next((port for host, port in addresses if _answers(host, port)), None)


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), _SECONDS) as asked:
        asked.sendall(_QUESTION)
        answer = b""
        while _ANSWER not in answer and len(answer) < _ENOUGH:
            chunk = asked.recv(_ENOUGH)
            if not chunk:
                return False
            answer += chunk
        return _ANSWER in answer
    return False
