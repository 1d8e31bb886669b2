"""What could not be written: told to sessions' owners if the API server refused it, and tried again soon if it was away."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hairpin.kubernetes.errors import ApiForbiddenError, ApiUnreachableError
from xds_server.delivery.istio.world import Plan, PlanSettings, World
from xds_server.model.cluster import Key
from xds_server.server.kubernetes import executor as module
from xds_server.server.kubernetes.executor import AWAY_SECONDS, LASTING, Executor

KEY = Key("shop", "hairpin-sessions")
PLAN = Plan(apply={KEY: {}})
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORLD = World(settings=PlanSettings(certificate_authority=""), leading_since=NOW, namespaces=frozenset({"shop"}))
FORBIDDEN = ApiForbiddenError(403, "Forbidden", "the controller may not")
AWAY = ApiUnreachableError(503, "ServiceUnavailable", "the API server can't be reached")


class Server:
    """An API server that fails each write in one way."""

    def __init__(self):
        self.error = None

    async def apply(self, _kind, _document, *, manager):
        assert manager == "hairpin-controller"
        if self.error is not None:
            raise self.error
        return {}


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def executor(server):
    return Executor(server, None, lambda *_: None)


async def fail(executor, clock, times):
    """Fail so often; the pauses that were asked for."""
    pauses = []
    for _ in range(times):
        pauses.append(await executor.execute(WORLD, PLAN, NOW))
        clock.now += pauses[-1]
    return pauses


async def test_what_is_refused_time_and_again_is_told(executor, server, clock):
    server.error = FORBIDDEN
    await fail(executor, clock, LASTING - 1)
    assert executor.unwritten == {}
    await fail(executor, clock, 1)
    assert executor.unwritten == {KEY: "the controller may not"}
    server.error = None
    assert await executor.execute(WORLD, PLAN, NOW) is None
    assert executor.unwritten == executor.problems == {}


async def test_an_api_server_that_is_away_is_no_refusal_and_is_tried_again_soon(executor, server, clock):
    server.error = AWAY
    pauses = await fail(executor, clock, 20)
    assert executor.unwritten == {}
    assert executor.problems == {f"EnvoyFilter {KEY}": str(AWAY)}
    assert max(pauses) < AWAY_SECONDS + 0.01


async def test_what_was_refused_before_it_went_away_is_told_as_it_was(executor, server, clock):
    server.error = FORBIDDEN
    await fail(executor, clock, LASTING)
    server.error = AWAY
    await fail(executor, clock, 2)
    assert executor.unwritten == {KEY: "the controller may not"}
