"""Fan-out of session events to watchers. A slow watcher loses request lines, never changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_LINES = 1000
"""How many request lines may wait for one watcher."""

Event = dict[str, Any]


class Watchers:
    """Queues of events, by session."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, set[asyncio.Queue[Event | None]]] = defaultdict(set)

    @contextlib.contextmanager
    def subscribe(self, session: str) -> Iterator[asyncio.Queue[Event | None]]:
        """A queue of what becomes of this session; None at the end."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues[session].add(queue)
        try:
            yield queue
        finally:
            self._queues[session].discard(queue)
            if not self._queues[session]:
                del self._queues[session]

    def change(self, session: str, event: Event, *, last: bool) -> None:
        """A change of the session: every watcher gets it."""
        for queue in self._queues.get(session, ()):
            queue.put_nowait(event)
            if last:
                queue.put_nowait(None)

    def request(self, session: str, request: dict[str, Any]) -> None:
        """A request that the session's laptop or its fallback answered."""
        for queue in self._queues.get(session, ()):
            if queue.qsize() < REQUEST_LINES:
                queue.put_nowait({"type": "REQUEST", "request": request})

    def close(self) -> None:
        """End every watch: the server is going away."""
        for queues in self._queues.values():
            for queue in queues:
                queue.put_nowait(None)
