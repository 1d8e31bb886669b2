"""A developer stops at a breakpoint for minutes: their request waits, everyone else's go on."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = [pytest.mark.envoy, pytest.mark.slow, pytest.mark.timeout(500)]

HELD_SECONDS = 360


async def test_a_request_held_for_six_minutes_is_answered_and_nobody_else_waits(mesh):
    async with (
        mesh.laptop("alice", "alice") as alice,
        mesh.laptop("bob", "bob") as bob,
        mesh.traffic(None, pause=1) as everyone,
        mesh.traffic("carol", pause=1) as elsewhere,
        mesh.traffic("alice", pause=1) as alices,
        mesh.traffic("bob", pause=1) as bobs,
        asyncio.TaskGroup() as tasks,
    ):
        clock = asyncio.get_running_loop()
        began = clock.time()
        get = tasks.create_task(mesh.ask("alice", path="/hold?key=breakpoint"))
        post = tasks.create_task(mesh.ask("alice", path="/hold?key=breakpoint", method="POST", data=b"order"))
        waiting = await mesh.ask("alice", path="/held?key=breakpoint&n=2")
        assert (waiting["who"], waiting["held"]) == ("laptop of alice", 2)
        await asyncio.sleep(HELD_SECONDS)
        assert not get.done() and not post.done()
        assert (await mesh.ask("alice", path="/release?key=breakpoint"))["released"] == 2
        answers = [await get, await post]
        assert clock.time() - began >= HELD_SECONDS
        assert [answer["who"] for answer in answers] == ["laptop of alice"] * 2
        assert answers[1]["length"] == 5
    for counts, who in (
        (everyone, "checkout"), (elsewhere, "checkout"), (alices, "laptop of alice"), (bobs, "laptop of bob"),
    ):  # fmt: skip
        assert set(counts) == {who}
        assert counts[who] > HELD_SECONDS / 3
    for run in (alice, bob):
        assert not [line for line in run.errors if "lost" in line]
