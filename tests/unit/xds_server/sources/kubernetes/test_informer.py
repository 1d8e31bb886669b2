"""Informers against an API server that does what the test says, one answer after another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hairpin.kubernetes.api import Event
from hairpin.kubernetes.errors import ApiGoneError, ApiNotFoundError, ApiUnavailableError
from hairpin.kubernetes.kinds import PODS
from tests.support.envoy import eventually
from xds_server.model.cluster import Key
from xds_server.sources.kubernetes import informer as module
from xds_server.sources.kubernetes.informer import Backoff, Informer


def pod(name: str, version: int, value: str = "") -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, "resourceVersion": str(version)}, "value": value}


class FakeApi:
    """Its lists and watches are a script; at its end a watch is silent."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[str] = []

    def _next(self) -> Any:
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list(self, _kind, **_: Any) -> dict[str, Any]:
        self.asked.append("list")
        version, *items = self._next()
        return {"metadata": {"resourceVersion": str(version)}, "items": items}

    async def watch(self, _kind, *, version: str, **_: Any) -> AsyncIterator[Event]:
        self.asked.append(f"watch {version}")
        if not self.script:
            await asyncio.Event().wait()
        for event in self._next():
            if isinstance(event, Exception):
                raise event
            yield event


@contextlib.asynccontextmanager
async def running(*script: Any):
    changes = []
    api = FakeApi(*script)
    informer = Informer(api, PODS, parse=lambda document: document["value"], changed=lambda: changes.append(1))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(informer.run())
        try:
            await eventually(lambda: not api.script, what="the script's end")
            await asyncio.sleep(0)
            yield informer, api, changes
        finally:
            task.cancel()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "MISSING_DELAY", 0.01)
    monkeypatch.setattr(module, "FIRST_DELAY", 0.01)


def values(informer) -> list[str]:
    return sorted(informer)


async def test_a_list_then_what_is_different():
    events = [
        Event("ADDED", pod("b", 11, "b")),
        Event("MODIFIED", pod("a", 12, "a2")),
        Event("DELETED", pod("b", 13, "b")),
        Event("BOOKMARK", {"metadata": {"resourceVersion": "20"}}),
    ]
    async with running((10, pod("a", 9, "a")), events) as (informer, api, changes):
        await eventually(lambda: len(api.asked) == 3, what="watched again")
        assert values(informer) == ["a2"] and informer.get(Key("shop", "a")) == "a2"
        # It goes on from the bookmark, without a list.
        assert api.asked == ["list", "watch 10", "watch 20"]
        assert len(changes) == 4


async def test_what_we_wrote_is_known_before_the_watch_has_it_and_older_news_do_not_undo_it():
    async with running((10, pod("a", 9, "old"))) as (informer, _, changes):
        informer.note(pod("a", 30, "ours"))
        informer._on_event(Event("MODIFIED", pod("a", 20, "before ours")))
        assert values(informer) == ["ours"]
        informer._on_event(Event("MODIFIED", pod("a", 30, "ours")))
        assert len(changes) == 2  # the list, and our own
        informer._on_event(Event("DELETED", pod("a", 25, "an earlier one of this name")))
        assert values(informer) == ["ours"]
        informer._on_event(Event("DELETED", pod("a", 31, "ours")))
        assert values(informer) == []


async def test_a_version_too_old_means_a_new_list():
    gone = ApiGoneError(410, "Expired", "too old")
    async with running((10, pod("a", 9, "a")), [gone], (50, pod("b", 40, "b"))) as (informer, api, _):
        await eventually(lambda: values(informer) == ["b"], what="listed anew")
        assert api.asked[:3] == ["list", "watch 10", "list"]


async def test_while_the_api_server_is_away_the_copy_stays():
    away = ApiUnavailableError(503, "", "away")
    async with running((10, pod("a", 9, "a")), [away], away, away, (60, pod("a", 9, "a"))) as (informer, _, _c):
        assert values(informer) == ["a"] and informer.synced
        await eventually(lambda: not informer.problem, what="well again")


async def test_nothing_known_is_not_empty():
    away = ApiUnavailableError(503, "", "away")
    informer = Informer(FakeApi(away), PODS, parse=lambda d: d, changed=lambda: None)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(informer.run())
        await eventually(lambda: informer.problem == "away", what="the problem")
        assert not informer.synced
        task.cancel()


async def test_a_kind_that_is_not_there_is_empty_until_it_is():
    missing = ApiNotFoundError(404, "NotFound", "no such kind")
    async with running((10, pod("a", 9, "a")), [missing], missing, (70, pod("b", 69, "b"))) as (informer, _, _c):
        await eventually(lambda: values(informer) == ["b"], what="back")
        assert informer.synced and not informer.missing and not informer.problem


async def test_one_object_that_can_not_be_read_does_not_end_the_informer(caplog):
    def parse(document):
        if document["value"] == "bad":
            raise KeyError("bad")
        return document["value"]

    api = FakeApi((10, pod("a", 9, "bad")), (11, pod("a", 10, "good")))
    informer = Informer(api, PODS, parse=parse, changed=lambda: None)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(informer.run())
        await eventually(lambda: values(informer) == ["good"], what="read")
        task.cancel()
    assert "bad" in caplog.text


def test_delays_grow_to_a_bound_and_begin_anew():
    backoff = Backoff(1.0, 4.0)
    for longest in (1.0, 2.0, 4.0, 4.0):
        assert longest / 2 <= backoff.next() <= longest
    backoff.reset()
    assert backoff.next() <= 1.0
