"""The story that the README tells, played unattended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.support.mesh import ROOT, eventually

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(150)]


@pytest.fixture
def home():
    """A folder with a short name: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="hp-") as name:
        yield Path(name)


def mine(home):
    """The processes that were started with this folder as theirs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def demo(home):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hairpin",
        "demo",
        "--once",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(home), "XDG_STATE_HOME": str(home / "state")},
    )


async def test_every_step_of_the_story_holds_and_nothing_is_left_behind(home):
    process = await demo(home)
    output, errors = (stream.decode() for stream in await process.communicate())
    assert process.returncode == 0, output + errors
    assert output.endswith("Every step held.\n")
    assert "NOT SO" not in output
    assert [int(number) for number in re.findall(r"^(\d)\. ", output, re.MULTILINE)] == list(range(1, 9))
    assert len(re.findall(r"^    ok: ", output, re.MULTILINE)) >= 9
    assert "ok: each answered where it belongs: 200 of 200" in output
    assert "$ hairpin run --env alice --target checkout -- python checkout_of_alice.py" in output
    assert errors == ""
    assert list(home.iterdir()) == []
    assert mine(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_story_that_is_broken_off_leaves_no_process(home, number):
    process = await demo(home)
    while b"takes the requests" not in (line := await process.stdout.readline()):
        assert line, (await process.stderr.read()).decode()
    assert len(mine(home)) > 10
    process.send_signal(number)
    await process.communicate()
    assert process.returncode != 0

    async def nothing():
        return not mine(home)

    await eventually(nothing, "all that it had started has ended")
