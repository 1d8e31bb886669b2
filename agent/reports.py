"""What the agent tells the control plane: the tunnels that are up, by session, and the requests that went through.

Envoy says both as JSON lines on its standard output, within its flush interval. A slow poll of its gauges catches a
line that got lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

GAUGES = r"^tunnel\.worker_0\.node\."
"""Envoy's gauges of tunnels by session."""
_GAUGE_PREFIX = "tunnel.worker_0.node."
_FULL_STATE_INTERVAL = 10.0
"""Seconds of silence after which the state is sent again: a connection that is gone is then noticed."""
_MOST_REQUESTS = 1000
"""Requests kept while the control plane does not take them; older ones are dropped."""
_UNKNOWN_SOCKET = -1


class Reports:
    """The state that is reported, fed by Envoy's lines; at most one `stream` at a time.

    Args:
        on_request: called with each request's line.
        requests: whether requests are reported too.
    """

    def __init__(self, on_request: Callable[[dict[str, Any]], None] | None = None, *, requests: bool = True) -> None:
        self._on_request_line = on_request
        self._reports_requests = requests
        self._sockets: dict[str, set[int]] = {}
        self._requests: deque[dict[str, Any]] = deque(maxlen=_MOST_REQUESTS)
        self._suspects: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._tunnels_changed = False

    @property
    def tunnels(self) -> frozenset[str]:
        """The sessions that have a tunnel to this replica."""
        return frozenset(self._sockets)

    def on_line(self, line: bytes) -> None:
        """One line of Envoy's output; what is no JSON object of ours is logged and left."""
        try:
            entry = json.loads(line)
            if "event" in entry:
                self._on_tunnel(entry["event"], str(entry["session"]), int(entry["socket"]))
            else:
                self._on_request(entry)
        except (ValueError, TypeError, KeyError):
            log.warning("unexpected output of Envoy: %s", line[:200].decode(errors="replace"))

    def reset(self) -> None:
        """Envoy ended, and every tunnel with it."""
        self._sockets.clear()
        self._note_tunnels()

    def reconcile(self, gauges: Mapping[str, int]) -> None:
        """Compare with Envoy's gauges; what differs twice in a row is believed to them.

        Once means nothing: the gauges are ahead of the lines by the flush interval.
        """
        counted = {name.removeprefix(_GAUGE_PREFIX) for name, value in gauges.items() if value > 0}
        differing = frozenset(counted ^ self._sockets.keys())
        settled, self._suspects = differing & self._suspects, differing - self._suspects
        for session in settled:
            log.warning("session %s: Envoy's gauge and its events differed; its gauge holds", session)
            if session in counted:
                self._sockets[session] = {_UNKNOWN_SOCKET}
            else:
                del self._sockets[session]
        if settled:
            self._note_tunnels()

    async def stream(self) -> AsyncIterator[bytes]:
        """NDJSON: the full state at first, at each change and after some silence; requests as they come."""
        self._tunnels_changed = True
        while True:
            self._changed.clear()
            if self._tunnels_changed:
                self._tunnels_changed = False
                yield _line({"tunnels": sorted(self._sockets)})
                continue  # another change since then goes before the requests
            if self._requests:
                requests = list(self._requests)
                self._requests.clear()
                yield _line({"requests": requests})
            try:
                async with asyncio.timeout(_FULL_STATE_INTERVAL):
                    await self._changed.wait()
            except TimeoutError:
                self._tunnels_changed = True

    def _on_tunnel(self, event: str, session: str, socket: int) -> None:
        sockets = self._sockets.get(session, set())
        if event == "tunnel_setup":
            self._sockets[session] = sockets | {socket}
        elif left := sockets - {socket, _UNKNOWN_SOCKET}:
            self._sockets[session] = left
        else:
            self._sockets.pop(session, None)
        if bool(sockets) != (session in self._sockets):
            log.info("tunnel %s: %s", "up" if session in self._sockets else "down", session)
            self._note_tunnels()

    def _on_request(self, entry: dict[str, Any]) -> None:
        if self._on_request_line:
            self._on_request_line(entry)
        if self._reports_requests:
            self._requests.append(entry)
            self._changed.set()

    def _note_tunnels(self) -> None:
        self._tunnels_changed = True
        self._changed.set()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
