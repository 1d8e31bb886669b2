"""What programs do with sockets under `hairpin run`, and what users of such tools reported as broken: `sockets.py` has the cases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local_proxy.intercept.exact import MOST_SECONDS
from tests.integration.test_egress import own_address
from tests.laptop.runs import INTERCEPT, driven, unprivileged
from tests.support.mesh import echo_mesh, eventually, running_mesh, started_by

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120, func_only=True)]

SCRIPT = str(Path(__file__).parent / "sockets.py")
AT_HOME = (
    "own_port", "port_zero", "double_bind", "fork_after_listen", "two_families", "reopened_listener", "thousand_at_home",
    "udp_at_home", "no_network", "odd_calls",
)  # fmt: skip
IN_THE_MESH = ("source_port", "thousand_to_the_mesh", "event_loop", "children_and_threads")
IN_NODE = """
const net = require('net'), [host, port] = process.argv.slice(1);
net.connect(port, host, () => process.exit(1)).on('error', error => {
  if (error.code !== 'ECONNREFUSED') { console.log(error); process.exit(2); }
  require('http').get('http://inventory/', answer => process.exit(answer.statusCode === 200 ? 0 : 3));
});
"""
A_CALL = [sys.executable, SCRIPT, "a_call"]
BELOW = {
    "strace": ["strace", "-f", "-e", "trace=connect", *A_CALL],
    "gdb": ["gdb", "-batch", "-nx", "-ex", "run", "--args", *A_CALL],
}
"""Tools that run a program, and what they are to show of it."""


def in_case(name, *arguments):
    return {"key": name, "argv": [sys.executable, SCRIPT, name, *arguments], "environment": {}}


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    async with running_mesh(echo_mesh(), tmp_path_factory.mktemp("sockets")) as running:
        yield running


@pytest.fixture(scope="module")
async def outcome(mesh):
    """The cases, under one `hairpin run`."""
    wanted = [in_case(name) for name in (*AT_HOME, *IN_THE_MESH)]
    wanted += [{"key": tool, "argv": argv, "environment": {}} for tool, argv in BELOW.items() if shutil.which(tool)]
    wanted += [{"key": "exit code", "argv": ["sh", "-c", "exit 7"], "environment": {}}]
    return (await driven(mesh, wanted, python=sys.executable, wrapper=unprivileged()))[1]


async def test_exact_connects_end_as_the_far_ones_do(mesh):
    """In a real mesh: connected, refused by the agent, and refused by a port that is closed. Node's loop too, if there is one."""
    host = own_address()
    if host == "127.0.0.1":
        pytest.skip("this machine has no address but loopback, which the egress refuses")
    with socket.socket() as closed:
        closed.bind(("0.0.0.0", 0))
        port = str(closed.getsockname()[1])
        wanted = [in_case("exact_errors", host, port)]
        if node := shutil.which("node"):
            wanted.append({"key": "node", "argv": [node, "-e", IN_NODE, host, port], "environment": {}})
        run, results = await driven(mesh, wanted, "--connect", "exact", python=sys.executable, wrapper=unprivileged())
    for result in results.values():
        assert result["code"] == 0, (result["output"], run.errors)
    assert any(f"{host}:{port} can't be connected to: nothing listens there" in line for line in run.errors), run.errors
    assert any("169.254.169.254:80 is refused: " in line for line in run.errors), run.errors


def check(outcome, name):
    assert outcome[name]["code"] == 0, outcome[name]["output"]


@pytest.mark.parametrize("name", AT_HOME)
def test_what_stays_on_the_machine(outcome, name):
    check(outcome, name)


@pytest.mark.parametrize("name", IN_THE_MESH)
def test_what_goes_into_the_mesh(outcome, name):
    check(outcome, name)


def test_odd_calls_end_as_without_hairpin(outcome):
    natively = subprocess.run(
        [sys.executable, SCRIPT, "odd_calls"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert outcome["odd_calls"]["output"] == natively.stdout


def test_a_program_that_calls_nobody_ends_as_it_does(outcome):
    assert outcome["exit code"]["code"] == 7


@pytest.mark.parametrize("tool", BELOW)
def test_debuggers_run_a_program_below_it(outcome, tool):
    if tool not in outcome:
        pytest.skip(f"{tool} is missing; install Debian's package {tool}")
    assert outcome[tool]["code"] == 0, outcome[tool]
    assert "answered by inventory" in outcome[tool]["output"]
    assert {"strace": "connect(", "gdb": "exited normally"}[tool] in outcome[tool]["output"]


def envoy_of(mesh):
    """The processes of the agent's: its Envoy, and what answers its questions."""
    return started_by(os.getpid(), "hairpin-agent")


async def test_a_connect_that_may_not_wait_does_not_though_the_agent_is_frozen(mesh, tmp_path):
    ready, frozen = tmp_path / "ready", tmp_path / "frozen"
    command = [sys.executable, SCRIPT, "while_the_agent_is_frozen", str(ready), str(frozen)]
    arguments = ["run", "--mode", "egress", *INTERCEPT, "--lease", "60", "--", *command]
    async with mesh.hairpin("alice", *arguments, wrapper=unprivileged()) as run:
        await eventually(lambda: exists(ready, run), "the name is looked up")
        with stopped(envoy_of(mesh)):
            frozen.touch()
            assert await run.ended() == 0, "\n".join([*run.errors, *run.output])


@pytest.mark.parametrize("dead", [False, True], ids=["it hangs", "it is dead"])
async def test_exact_connects_fail_while_no_agent_is_reached_and_work_again(mesh, tmp_path, dead):
    """A hanging one is as on a node that is gone. In the end it is killed, and another comes. The program sees two errors alone."""
    ready, frozen, told = (tmp_path / name for name in ("ready", "frozen", "told"))
    command = [sys.executable, SCRIPT, "exact_while_no_agent_is_reached", str(ready), str(frozen), str(told)]
    flags = ["--mode", "egress", *INTERCEPT, "--connect", "exact", "--lease", "60"]
    async with mesh.hairpin("alice", "run", *flags, "--", *command, wrapper=unprivileged()) as run:
        await eventually(lambda: exists(ready, run), "both ways connect")
        (agent,) = mesh.supervisor.agents.values()
        with stopped(envoy_of(mesh)):
            if dead:
                for child in psutil.Process(agent.pid).children():  # which nobody starts again, as the agent hangs
                    child.kill()
            frozen.touch()
            await eventually(lambda: exists(told, run), "both ways have ended", seconds=60)
            os.killpg(agent.pid, signal.SIGKILL)
        assert await run.process.wait() == 0, "\n".join([*run.errors, *run.output])
        await run.ended()
    (ends,) = map(json.loads, run.output)
    assert {way: end for way, (end, _) in ends.items()} == {"blocking": "ENETUNREACH", "not blocking": "ENETUNREACH"}
    assert all(seconds < MOST_SECONDS + 10 for _, seconds in ends.values()), ends
    assert [line for line in run.errors if "inventory:80 (" in line and "can't be connected to: " in line], run.errors


async def exists(path, run):
    assert run.process.returncode is None, run.errors
    return path.exists()


@contextlib.contextmanager
def stopped(processes):
    assert processes
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # killed meanwhile
                process.resume()


async def test_killed_hairpin_leaves_no_program_hanging(mesh, tmp_path):
    """With SIGKILL; the program and a child of its are in the middle of calls, and are ended."""
    note = tmp_path / "note"
    arguments = ["run", "--mode", "egress", *INTERCEPT, "--", sys.executable, SCRIPT, "forever", str(note)]
    async with mesh.hairpin("alice", *arguments, wrapper=unprivileged()) as run:
        await eventually(lambda: exists(note, run), "the program runs")
        pids = [int(pid) for pid in note.read_text().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        await asyncio.sleep(0.5)  # calls are under way
        run.process.send_signal(signal.SIGKILL)

        async def gone():
            return not any(psutil.pid_exists(pid) for pid in pids)

        try:
            await eventually(gone, "the program and its child have ended")
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(780, func_only=True)
async def test_a_connection_that_is_idle_for_ten_minutes_lives(mesh):
    arguments = ["run", "--mode", "egress", *INTERCEPT, "--", sys.executable, SCRIPT, "idle", "600"]
    async with mesh.hairpin("bob", *arguments, wrapper=unprivileged()) as run:
        assert await asyncio.wait_for(run.process.wait(), 700) == 0, "\n".join([*run.errors, *run.output])
        await run.ended()
    assert run.output == ["idle", "answered"]
