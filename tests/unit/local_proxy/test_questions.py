"""Questions race between replicas: a fake of the laptop's socket answers for each, as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter

import pytest
from aiohttp import web

from hairpin.errors import UnavailableError
from local_proxy import questions as module
from local_proxy.egress import AGENT_HEADER
from local_proxy.questions import Questions


class Replicas:
    """By name: a status and a document, or an event to wait for first."""

    def __init__(self):
        self.answers, self.asked, self.broken_off, self.paths = {}, Counter(), Counter(), []

    async def handle(self, request):
        name = request.headers[AGENT_HEADER].removeprefix("ask/")
        self.asked[name] += 1
        self.paths.append(request.raw_path)
        answer = self.answers[name]
        try:
            if isinstance(answer, asyncio.Event):
                await answer.wait()
                answer = (200, {"addresses": ["192.0.2.9"]})
        except asyncio.CancelledError:
            self.broken_off[name] += 1
            raise
        status, document = answer
        if isinstance(document, str):
            return web.Response(status=status, text=document)
        return web.Response(status=status, text=json.dumps(document), content_type="application/json")


@pytest.fixture
async def replicas(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.02)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 60.0)
    fake = Replicas()
    application = web.Application()
    application.router.add_get("/{path:.*}", fake.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    fake.socket = tmp_path / "s"
    yield fake
    for answer in fake.answers.values():
        if isinstance(answer, asyncio.Event):
            answer.set()
    await runner.cleanup()


def asking(replicas):
    return Questions.opened(lambda: replicas.socket, lambda: list(replicas.answers))


def found(address):
    return 200, {"addresses": [address], "name": "inventory.shop"}


async def test_one_replica_that_answers_is_asked_alone_and_first_the_next_time(replicas, monkeypatch):
    monkeypatch.setattr(module, "SILENT_SECONDS", 60.0)  # none is silent, however busy the machine
    replicas.answers = {"a": (502, "no agent"), "b": found("192.0.2.1"), "c": found("192.0.2.1")}
    async with asking(replicas) as questions:
        for _ in range(3):
            assert [str(a) for a in (await questions.name("inventory")).addresses] == ["192.0.2.1"]
    assert replicas.asked == {"a": 1, "b": 3}


async def test_beside_a_silent_replica_the_next_is_asked_and_the_silent_one_broken_off(replicas):
    replicas.answers = {"a": asyncio.Event(), "b": found("192.0.2.2")}
    async with asking(replicas) as questions:
        answer = await questions.name("inventory")
        assert (str(answer.addresses[0]), answer.name) == ("192.0.2.2", "inventory.shop")
        async with asyncio.timeout(30):
            while not replicas.broken_off["a"]:
                await asyncio.sleep(0.01)
    assert replicas.asked == {"a": 1, "b": 1}


async def test_a_replica_that_cannot_say_loses_to_one_that_can(replicas):
    replicas.answers = {"a": (503, {"reason": "name server away"}), "b": (404, {"reason": "there is no inventory"})}
    async with asking(replicas) as questions:
        answer = await questions.name("inventory")
        assert (answer.exists, answer.reason) == (False, "there is no inventory")
        replicas.answers["b"] = (502, "gone")
        with pytest.raises(UnavailableError, match=r"^name server away$"):
            await questions.name("inventory")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, "404: Not Found"), "a answers 404, so it is of a version that knows no such questions"),
        ((403, ""), "a answers 403, so it does not know the session"),
        ((200, "hello"), "a answers 200"),
        ((200, [1]), "a answers what can't be read"),
    ],
)
async def test_what_is_no_answer_says_whose_it_is(replicas, answer, words):
    replicas.answers = {"a": answer}
    async with asking(replicas) as questions:
        with pytest.raises(UnavailableError, match=f"^the agent can't be asked: {words}$"):
            await questions.name("inventory")


async def test_addresses_that_are_none_are_no_answer(replicas):
    replicas.answers = {"a": (200, {"addresses": ["inventory"]})}
    async with asking(replicas) as questions:
        with pytest.raises(UnavailableError, match="the agent says of inventory what can't be read"):
            await questions.name("inventory")


async def test_silence_has_an_end(replicas, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 1.0)
    replicas.answers = {"a": asyncio.Event(), "b": asyncio.Event()}
    async with asking(replicas) as questions:
        with pytest.raises(UnavailableError, match="the agent can't be asked: no answer in time"):
            await questions.name("inventory")
    assert replicas.asked == {"a": 1, "b": 1}


async def test_what_is_asked_stays_one_part_of_the_path(replicas):
    replicas.answers = {"a": (403, {"reason": "no"})}
    async with asking(replicas) as questions:
        verdict = await questions.destination("[fd00::1]:80", "a/../policy?x")
    assert (verdict.allowed, verdict.reason) == (False, "no")
    assert replicas.paths == ["/destinations/%5Bfd00%3A%3A1%5D%3A80?host=a%2F..%2Fpolicy%3Fx"]


async def test_a_new_session_has_a_new_socket_and_without_one_nothing_is_asked(replicas):
    replicas.answers = {"a": found("192.0.2.1")}
    sockets = [None, replicas.socket.with_name("gone"), replicas.socket]
    async with Questions.opened(lambda: sockets[0], lambda: ["a"]) as questions:
        with pytest.raises(UnavailableError, match="there is no session now"):
            await questions.name("inventory")
        sockets.pop(0)
        with pytest.raises(UnavailableError, match=r"^the agent can't be asked: a: "):
            await questions.name("inventory")
        sockets.pop(0)
        assert (await questions.name("inventory")).exists


async def test_who_stops_asking_is_let_go(replicas):
    replicas.answers = {"a": asyncio.Event()}
    async with asking(replicas) as questions, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(questions.name("inventory"))
        while not replicas.asked["a"]:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
