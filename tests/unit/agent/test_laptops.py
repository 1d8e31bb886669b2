"""What laptops ask the agent, over its socket."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from agent.judge import Judge
from agent.laptops import Laptops, RequestWatch
from agent.names import Names
from agent.policies import Policies
from tests.support.envoy import eventually


class Setting:
    def __init__(self, watch: RequestWatch, policies: Policies, client: aiohttp.ClientSession) -> None:
        self.watch, self.policies, self._client = watch, policies, client

    def get(self, path: str, session: str = "alice.shop"):
        headers = {"x-hairpin-session": session} if session else {}
        return self._client.get(f"http://agent{path}", headers=headers)

    @asynccontextmanager
    async def listening(self, session: str = "alice.shop"):
        before = self.watch.listeners(session)
        async with self.get("/requests", session) as response:
            await eventually(lambda: self.watch.listeners(session) > before, what=f"{session} listens")
            yield response


@pytest.fixture
async def setting(tmp_path):
    watch, policies = RequestWatch(), Policies(patience=0.01)
    policies.on_sessions = watch.keep
    async with AsyncExitStack() as stack:
        runner = await Laptops(watch, Names(Judge(policies=policies))).serve(tmp_path / "s")
        stack.push_async_callback(runner.cleanup)
        connector = aiohttp.UnixConnector(str(tmp_path / "s"))
        yield Setting(watch, policies, await stack.enter_async_context(aiohttp.ClientSession(connector=connector)))


def seen(session: str, path: str) -> dict:
    return {"session": session, "method": "GET", "path": path}


async def test_a_session_hears_of_its_own_requests(setting):
    setting.watch.seen(seen("alice.shop", "/before"))
    async with setting.listening() as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        setting.watch.seen(seen("bob.shop", "/hers"))
        setting.watch.seen(seen("alice.shop", "/a"))
        setting.watch.seen(seen("alice.shop", "/b"))
        assert [json.loads(await response.content.readline())["path"] for _ in range(2)] == ["/a", "/b"]


async def test_it_ends_with_the_session_and_no_other(setting):
    async with setting.listening() as alice, setting.listening("bob.shop") as bob:
        setting.policies.take(json.dumps({"sessions": {"bob.shop": {"default": "Allow"}}}).encode())
        assert await alice.content.read() == b""
        setting.watch.seen(seen("bob.shop", "/a"))
        assert json.loads(await bob.content.readline())["path"] == "/a"


async def test_whoever_goes_away_is_forgotten(setting):
    async with setting.listening():
        pass
    await eventually(lambda: setting.watch.listeners("alice.shop") == 0, what="nobody listens")


async def test_a_slow_listener_loses_lines_and_keeps_no_more_than_its_queue():
    watch = RequestWatch()
    with watch.listen("a") as queue:
        for number in range(3000):
            watch.seen({"session": "a", "number": number})
        watch.close()
        assert queue.qsize() == 1001
        assert [(queue.get_nowait() or {}).get("number") for _ in range(1001)] == [*range(1000), None]
    assert watch.listeners("a") == 0


async def test_listeners_are_bounded(setting):
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(setting.listening())
        async with setting.get("/requests") as response:
            assert response.status == 429
        async with setting.listening("bob.shop") as response:
            assert response.status == 200


async def test_the_policy_is_the_sessions_own(setting):
    async with setting.get("/policy") as response:
        assert response.status == 503
        assert "has not said yet" in (await response.json())["message"]
    rules = {"default": "Deny", "rules": [{"number": 3, "action": "Allow", "hosts": ["a.example"], "ports": [443]}]}
    setting.policies.take(json.dumps({"sessions": {"alice.shop": rules}}).encode())
    async with setting.get("/policy") as response:
        assert await response.json() == {"session": "alice.shop", **rules}
    async with setting.get("/policy", session="bob.shop") as response:
        assert response.status == 503


@pytest.mark.parametrize("path", ["/policy", "/requests"])
async def test_without_a_session_nothing_is_told(setting, path):
    async with asyncio.timeout(30), setting.get(path, session="") as response:
        assert response.status == 403
