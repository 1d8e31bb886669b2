from __future__ import annotations

from contextlib import ExitStack

from tests.support.xds import cluster, snapshot
from xds_server.cache.snapshot_cache import SnapshotCache


class Watcher:
    def __init__(self) -> None:
        self.marks = 0

    def __call__(self) -> None:
        self.marks += 1


def test_what_was_set_is_got():
    cache = SnapshotCache()
    assert cache.get("g") is None  # TestAvertPanicForWatchOnNonExistentSnapshot
    assert cache.set("g", snapshot(cluster("a")))
    assert cache.get("g") == snapshot(cluster("a"))
    assert cache.groups == ["g"]


def test_watchers_of_the_group_are_marked():  # TestSnapshotCacheWatch
    cache, mine, other = SnapshotCache(), Watcher(), Watcher()
    with cache.watch("g", mine), cache.watch("h", other):
        cache.set("g", snapshot(cluster("a")))
        cache.set("g", snapshot(cluster("a", 2)))
    assert (mine.marks, other.marks) == (2, 0)


def test_the_same_content_marks_nobody():
    cache, watcher = SnapshotCache(), Watcher()
    cache.set("g", snapshot(cluster("a")))
    with cache.watch("g", watcher):
        assert not cache.set("g", snapshot(cluster("a")))
    assert watcher.marks == 0


def test_a_watch_that_ended_is_forgotten():  # TestSnapshotCacheWatchCancel
    cache, first, second = SnapshotCache(), Watcher(), Watcher()
    with cache.watch("g", first), cache.watch("g", second):
        assert cache.watches("g") == 2
    cache.set("g", snapshot(cluster("a")))
    assert (first.marks, second.marks) == (0, 0)
    assert cache.watches("g") == 0
    assert not cache._watches


def test_a_watch_may_end_while_others_are_marked():  # TestConcurrentSetWatch
    cache, watcher = SnapshotCache(), Watcher()
    with ExitStack() as ending, cache.watch("g", ending.close), cache.watch("g", watcher):
        ending.enter_context(cache.watch("g", watcher))
        cache.set("g", snapshot(cluster("a")))
        assert cache.watches("g") == 2
    assert watcher.marks >= 1


def test_clear_forgets_the_snapshot_and_tells_nobody():  # TestSnapshotClear
    cache, watcher = SnapshotCache(), Watcher()
    cache.set("g", snapshot(cluster("a")))
    with cache.watch("g", watcher):
        cache.clear("g")
        cache.clear("g")
    assert cache.get("g") is None
    assert watcher.marks == 0
