"""Programs as children, with small shell programs in Envoy's place."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

import psutil
import pytest

from hairpin.envoy.child import Child, LineSplitter
from hairpin.envoy.leash import leashed, suitable_leash
from tests.support.envoy import eventually, running

LEASHES = ["signal", "pipe"] if sys.platform == "linux" else ["pipe"]


class Log:
    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.err: list[bytes] = []
        self.exits: list[int] = []


async def spawn(script: str, log: Log, *, leash: str | None = None, slow=None) -> Child:
    def on_stdout(line: bytes) -> None:
        log.out.append(line)
        if slow:
            slow()

    return await Child.spawn(
        ["/bin/sh", "-c", script],
        on_stdout=on_stdout,
        on_stderr=log.err.append,
        on_exit=log.exits.append,
        leash=leash,
    )


def test_lines_are_whole_however_they_come():
    splitter = LineSplitter()
    assert list(splitter.feed(b"a\nb")) == [b"a"]
    assert list(splitter.feed(b"")) == []
    assert list(splitter.feed(b"c\n\nd\ne")) == [b"bc", b"", b"d"]
    assert list(splitter.rest()) == [b"e"]
    assert list(splitter.rest()) == []


def test_a_line_that_is_too_long_is_dropped_alone(caplog):
    splitter = LineSplitter(longest=5)
    assert list(splitter.feed(b"12345\n123456\n1\n")) == [b"12345", b"1"]
    got = [line for piece in (b"x" * 4, b"x" * 4, b"x" * 4, b"\nok", b"\n") for line in splitter.feed(piece)]
    assert got == [b"ok"]
    assert [list(splitter.feed(b"y" * 6)), list(splitter.rest())] == [[], []]
    assert caplog.messages == ["a line of more than 5 bytes was dropped"] * 2


@pytest.mark.parametrize("leash", LEASHES)
async def test_output_and_exit_code_come_through(leash):
    log = Log()
    child = await spawn("echo out; echo err >&2; printf rest; exit 7", log, leash=leash)
    await asyncio.wait_for(child.finished.wait(), 30)
    assert (log.out, log.err, log.exits, child.code) == ([b"out", b"rest"], [b"err"], [7], 7)
    assert not child.alive


@pytest.mark.parametrize("leash", LEASHES)
async def test_signals_reach_the_program_itself(leash):
    log = Log()
    child = await spawn("trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.01; done", log, leash=leash)
    await eventually(lambda: log.out, what="the program is up")
    child.signal(signal.SIGTERM)
    assert await child.wait(30)
    await child.kill()
    assert (log.out, log.exits) == ([b"up", b"term"], [3])


@pytest.mark.parametrize("leash", LEASHES)
async def test_nothing_is_left_of_a_killed_one(leash):
    log = Log()
    child = await spawn("echo up; exec sleep 1000", log, leash=leash)
    await eventually(lambda: log.out, what="the program is up")
    processes = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    await child.kill()
    await child.kill()
    assert log.exits == [-signal.SIGKILL]
    await eventually(lambda: not any(running(p.pid) for p in processes), what="program and watcher are gone")


async def test_an_end_that_was_asked_for_is_not_reported():
    log = Log()
    child = await spawn("exec sleep 1000", log)
    child.asked = True
    await child.kill()
    assert log.exits == []
    assert child.code == -signal.SIGKILL


async def test_a_long_line_comes_whole():
    log = Log()
    child = await spawn("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo short", log)
    await asyncio.wait_for(child.finished.wait(), 30)
    assert [len(line) for line in log.out] == [1_000_000, 5]


async def test_a_slow_reader_loses_nothing_and_leaves_the_loop_its_turns():
    log, turns, lines = Log(), 0, 0

    def slow() -> None:
        nonlocal lines
        lines += 1
        until = asyncio.get_running_loop().time() + 0.0002
        while asyncio.get_running_loop().time() < until:
            pass

    child = await spawn("seq 1 6000; echo done >&2", log, slow=slow)
    while not child.finished.is_set():
        turns += 1
        await asyncio.sleep(0)
    assert log.out == [b"%d" % number for number in range(1, 6001)]
    assert lines == 6000
    assert turns > 20, "other work ran meanwhile"


async def test_a_callback_that_fails_costs_its_own_line_only(caplog):
    log, calls = Log(), 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("a bug")

    child = await spawn("echo one; echo two", log, slow=fail)
    await asyncio.wait_for(child.finished.wait(), 30)
    assert (log.out, calls) == ([b"one", b"two"], 2)
    assert caplog.messages == ["a callback failed"]


async def test_a_program_that_is_not_there_ends_with_127():
    log = Log()
    child = await Child.spawn(
        ["/nowhere/envoy"], on_stdout=log.out.append, on_stderr=log.err.append, on_exit=log.exits.append
    )
    await asyncio.wait_for(child.finished.wait(), 30)
    assert (log.exits, log.err) == ([127], [b"/nowhere/envoy: No such file or directory"])


async def test_cancelled_while_it_starts():
    """At each point where it can be: none stays."""
    before = set(psutil.Process().children())
    for turns in range(12):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(spawn("exec sleep 1000", Log()))
            for _ in range(turns):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
        if not task.cancelled():
            await task.result().kill()
    await eventually(
        lambda: not [p for p in set(psutil.Process().children()) - before if running(p.pid)],
        what="all are gone",
    )


def test_the_kind_of_leash_follows_platform_and_thread():
    assert suitable_leash() == LEASHES[0]
    kinds: list[str] = []
    thread = threading.Thread(target=lambda: kinds.append(suitable_leash()))
    thread.start()
    thread.join()
    assert kinds == ["pipe"], "the signal comes when the thread ends, not the process"


def test_a_leash_is_tied_to_this_process_by_number():
    command = leashed(["/bin/envoy", "-c", "x"], "signal")
    assert command[-5:] == ["signal", str(os.getpid()), "/bin/envoy", "-c", "x"]
    assert command[1:3] == ["-I", "-S"], "nothing from outside is imported"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_parent_that_was_gone_before_is_noticed():
    command = leashed(["/bin/echo", "alive"], "signal")
    command[command.index("signal") + 1] = "1"  # as if started by a process that ended, and adopted by another
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (1, b"", b"the process that wanted this program is gone\n")
