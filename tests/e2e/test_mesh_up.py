"""`hairpin mesh up` with services that the user runs, by the command line alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import aiohttp
import psutil
import pytest
import yaml

from hairpin.ports import free_ports
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(150)]


@contextlib.asynccontextmanager
async def mesh_up(file, state):
    """The command, once it says where the entry is."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hairpin", "mesh", "up", str(file), "--state", str(state)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "USER": "alice"},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def said(process, words: str) -> str:
    lines = []
    async with asyncio.timeout(60):
        while line := (await process.stderr.readline()).decode():
            lines.append(line)
            if words in line:
                return line
    raise AssertionError("".join(lines))


def written(tmp_path, port: int, entry: int):
    document = {
        "name": "mine",
        "routingKey": {"baggage": "env"},
        "entry": {"service": "web", "port": entry},
        "services": {"web": {"ports": [{"port": 8000, "app": f"127.0.0.1:{port}"}]}},
    }
    file = tmp_path / "mesh.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


async def ask(entry: int, headers: dict[str, str]) -> str:
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{entry}/", headers=headers) as response:
        return str((await response.json())["who"]) if response.status == 200 else f"status {response.status}"


async def test_services_of_ones_own_and_an_environment_in_baggage(tmp_path):
    entry = next(free_ports())
    async with echo_process("mine") as mine, mesh_up(written(tmp_path, mine.http[1], entry), tmp_path / "state") as up:
        assert f"http://127.0.0.1:{entry} is web" in await said(up, "mesh mine")
        assert await ask(entry, {}) == "mine"
        async with echo_process("laptop") as laptop:
            config = tmp_path / "state" / "developers" / "alice.yaml"
            flags = ["--env", "alice", "--target", "web:8000", "--port", str(laptop.http[1])]
            run = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hairpin", "run", "--config", str(config), *flags),
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                await said(run, "takes the requests")
                assert await ask(entry, {"baggage": "a=1, env=alice;ttl=5"}) == "laptop"
                assert await ask(entry, {"baggage": "env=alicea"}) == "mine"
                assert await ask(entry, {"x-env": "alice"}) == "mine"
            finally:
                run.send_signal(signal.SIGINT)
                assert await asyncio.wait_for(run.wait(), 30) == 130
        assert await ask(entry, {"baggage": "env=alice"}) == "mine"
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) >= 5  # control plane, agent, sidecars, entry
        up.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(up.wait(), 30) == 0
        assert not [child for child in children if child.is_running()]


async def test_killed_it_leaves_nothing_behind(tmp_path):
    entry = next(free_ports())
    async with echo_process("mine") as mine, mesh_up(written(tmp_path, mine.http[1], entry), tmp_path / "state") as up:
        await said(up, "mesh mine")
        children = psutil.Process(up.pid).children(recursive=True)
        up.kill()
        await up.wait()
        await eventually(lambda: not [child for child in children if child.is_running()], what="all of it ended")


def only_service(tmp_path, command: list[str]):
    file = tmp_path / "mesh.yaml"
    file.write_text(yaml.safe_dump({"entry": {"port": next(free_ports())}, "services": {"web": {"command": command}}}))
    return file


async def test_ctrl_c_ends_a_mesh_that_is_still_coming_up(tmp_path):
    async with mesh_up(only_service(tmp_path, ["sleep", "100"]), tmp_path / "state") as up:
        await said(up, "up: agent")  # from here on it waits for a service that never listens
        children = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(up.wait(), 30) == 0
        assert not [child for child in children if child.is_running()]


async def test_a_service_that_ends_at_once_is_named_with_its_last_words(tmp_path):
    program = "import sys; sys.exit('no such flag: --prt')"
    async with mesh_up(only_service(tmp_path, ["{python}", "-c", program]), tmp_path / "state") as up:
        line = await said(up, "before it listened")
        assert "web ended" in line and "no such flag: --prt" in line and "web.log" in line
        assert await asyncio.wait_for(up.wait(), 30) == 1


async def test_a_port_of_a_services_own_that_is_taken_is_named(tmp_path):
    async with echo_process("stranger") as stranger:
        document = {
            "services": {"web": {"command": ["sleep", "1"], "ports": [{"app": f"127.0.0.1:{stranger.http[1]}"}]}}
        }
        file = tmp_path / "mesh.yaml"
        file.write_text(yaml.safe_dump(document))
        async with mesh_up(file, tmp_path / "state") as up:
            assert "services.web.ports.http.app" in await said(up, "is taken by another process")
            assert await asyncio.wait_for(up.wait(), 30) == 2
