"""SnapshotCache: the newest snapshot of each group of proxies, and who is to hear of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xds_server.cache.response_cache import ResponseCache
from xds_server.model.snapshot import Snapshot

MarkDirty = Callable[[], None]


class SnapshotCache:
    """A group's key to its snapshot.

    Setting a snapshot marks the group's streams as dirty and returns: it waits for no stream, holds no lock, and a
    stream that is slow finds the newest snapshot when it gets round to it, not the ones between. All of it belongs to
    one event loop.
    """

    def __init__(self) -> None:
        self.responses = ResponseCache()
        self._snapshots: dict[str, Snapshot] = {}
        self._watches: dict[str, dict[int, MarkDirty]] = {}
        self._next_watch = 0

    def set(self, group: str, snapshot: Snapshot) -> bool:
        """Make this the group's snapshot.

        Returns:
            Whether it differs from the one before; if not, nobody is told.
        """
        if self._snapshots.get(group) == snapshot:
            return False
        self._snapshots[group] = snapshot
        for mark_dirty in list(self._watches.get(group, {}).values()):
            mark_dirty()
        return True

    def get(self, group: str) -> Snapshot | None:
        """Return the group's snapshot, None if none was set."""
        return self._snapshots.get(group)

    def clear(self, group: str) -> None:
        """Forget the group's snapshot. Streams keep what they have: emptying a proxy takes an empty snapshot."""
        self._snapshots.pop(group, None)

    @property
    def groups(self) -> list[str]:
        """The groups that have a snapshot."""
        return sorted(self._snapshots)

    @contextmanager
    def watch(self, group: str, mark_dirty: MarkDirty) -> Iterator[None]:
        """Call `mark_dirty` at each change of the group's snapshot, until the context ends.

        Args:
            group: need not have a snapshot yet.
            mark_dirty: must neither block nor raise.
        """
        self._next_watch += 1
        watch = self._next_watch
        self._watches.setdefault(group, {})[watch] = mark_dirty
        try:
            yield
        finally:
            watches = self._watches[group]
            del watches[watch]
            if not watches:
                del self._watches[group]

    def watches(self, group: str) -> int:
        """Return how many streams watch the group."""
        return len(self._watches.get(group, {}))
