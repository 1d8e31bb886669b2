"""A mesh's programs: started again when they end, at once the first time and then less and less often."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys

import pytest

from hairpin.errors import HairpinError
from hairpin.mesh.program import Program
from tests.support.mesh import echo_mesh, eventually, running_mesh


@contextlib.asynccontextmanager
async def running(program):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(program.run())
        try:
            yield
        finally:
            task.cancel()


def program(tmp_path, source):
    return Program("program", [sys.executable, "-c", source], tmp_path / "log")


async def test_a_killed_program_is_started_again_and_ended_at_the_end(tmp_path):
    killed = program(tmp_path, "import time; print('up', flush=True); time.sleep(600)")

    async def up(times):
        return (tmp_path / "log").read_text().count("up\n") == times

    async with running(killed):
        await eventually(lambda: up(1), "it is up")
        first = killed.pid
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: up(2), "it is up again")
        last = killed.pid
        assert last != first and killed.restarts == 1
    assert killed.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


async def test_one_that_always_fails_is_started_less_and_less_often(tmp_path, caplog):
    def pauses():
        return re.findall(r"ended with 3; started again in ([0-9.]+) s", caplog.text)

    async def four():
        return len(pauses()) >= 4

    async with running(program(tmp_path, "raise SystemExit(3)")):
        await eventually(four, "it has failed four times")
    assert pauses()[:4] == ["0.0", "0.1", "0.2", "0.4"]


async def test_a_stranger_in_the_control_planes_place_is_named(tmp_path):
    """It answers, so it is not missed: as another mesh's control plane that has chosen the same ports."""
    mesh = echo_mesh()
    places = mesh.control_plane.api, mesh.control_plane.xds
    async with contextlib.AsyncExitStack() as strangers:
        for place in places:
            stranger = await asyncio.start_server(lambda _, writer: writer.close(), place.host, place.port)
            await strangers.enter_async_context(stranger)
        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.timeout(30), running_mesh(mesh, tmp_path):
                pass
    error = raised.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, HairpinError)
    told = rf"the control plane ended 3 times before it listened: .*{re.escape(str(mesh.control_plane.xds))}"
    assert re.match(told, str(error)), error
