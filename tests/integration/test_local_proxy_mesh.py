"""`hairpin run`, `sessions` and `stop` in a whole mesh: the real control plane, agents and sidecars."""

import asyncio
import contextlib
import errno
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

from local_proxy import guard
from tests.support.envoy import eventually, running
from tests.support.mesh import echo_mesh, running_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]


@contextlib.asynccontextmanager
async def held(folder):
    """A mesh, held by a task of its own: it may end before, or after, what is begun inside."""
    up, over = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def hold():
        try:
            async with running_mesh(echo_mesh(), folder) as mesh:
                up.set_result(mesh)
                await over.wait()
        except Exception as error:
            if up.done():
                raise
            up.set_exception(error)

    holding = asyncio.get_running_loop().create_task(hold())
    try:
        yield await up
    finally:
        over.set()
        await holding


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    async with held(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


async def test_the_environments_requests_are_the_laptops_and_no_others(mesh):
    async with mesh.laptop("alice", "alice") as run:
        assert (await mesh.ask("alice"))["who"] == "laptop of alice"
        assert (await mesh.ask("bob"))["who"] == "checkout"
        assert (await mesh.ask())["who"] == "checkout"
        await run.said(r"^hairpin -> GET checkout/ 200 \d+ ms$")
    await mesh.answered_by("checkout", "alice")
    assert "hairpin everything is given back" in run.errors


async def test_the_command_calls_into_the_mesh_as_the_agent(mesh):
    source = "import urllib.request as r; print(r.urlopen('http://inventory/', timeout=20).read().decode())"
    async with mesh.hairpin("alice", "run", "--mode", "egress", "--", sys.executable, "-c", source) as run:
        assert await asyncio.wait_for(run.process.wait(), 30) == 0
    assert "sa/hairpin-agent" in "".join(run.output)
    assert any(re.search(r"^hairpin <- inventory:80 \d+ B out, \d+ B in, \d+ ms$", line) for line in run.errors), (
        run.errors
    )


async def test_a_match_of_ones_own_is_taken(mesh):
    command = (sys.executable, "-m", "tests.support.echo", "--name", "mine", "--port", "0")
    flags = ("-t", "checkout:http", "--match", "header x-user=42 and path ^/api")
    async with mesh.hairpin("alice", "run", *flags, "--", *command) as run:
        await run.said("takes the requests")

        async def mine():
            return (await mesh.ask(path="/api/cart", headers={"x-user": "42"}))["who"] == "mine"

        await eventually(mine, what="the match's requests are the laptop's")
        assert (await mesh.ask(path="/cart", headers={"x-user": "42"}))["who"] == "checkout"
        assert (await mesh.ask(path="/api/cart"))["who"] == "checkout"
        await run.said(r"where header x-user=42 and path \^/api$")


async def test_a_second_claim_is_refused_and_names_the_owner(mesh):
    async with mesh.laptop("alice", "shared"):
        async with mesh.hairpin("bob", "run", "--env", "shared", "-t", "checkout:http", "--", "true") as second:
            assert await asyncio.wait_for(second.process.wait(), 30) == 4
    assert len(second.errors) == 1
    assert "alice" in second.errors[0]


async def test_sessions_are_listed_for_everyone_and_stopped_by_their_owner(mesh):
    async with mesh.laptop("alice", "listed") as run:
        async with mesh.hairpin("bob", "sessions") as listed:
            assert await listed.process.wait() == 0
        line = next(line for line in listed.output if "x-env=listed" in line)
        name = line.split()[0]
        assert line.split()[1] == "alice"
        async with mesh.hairpin("bob", "stop", name) as stop:
            assert await stop.process.wait() == 1
        assert "alice's" in stop.errors[0]
        async with mesh.hairpin("alice", "stop", name) as stop:
            assert await stop.process.wait() == 0
        assert await run.ended() == 1
        assert f"hairpin: session {name} was ended from elsewhere" in run.errors
    await mesh.answered_by("checkout", "listed")


async def test_an_unknown_target_names_those_there_are(mesh):
    async with mesh.hairpin("alice", "run", "--env", "x", "-t", "chekout", "--", "true") as run:
        assert await run.process.wait() == 3
    assert len(run.errors) == 1
    assert "'checkout'" in run.errors[0]


async def test_an_unknown_port_names_the_flag_and_those_there_are(mesh):
    async with mesh.hairpin("alice", "run", "--env", "x", "-t", "checkout:htp", "--", "true") as run:
        assert await run.process.wait() == 2
    assert len(run.errors) == 1
    assert run.errors[0].startswith("hairpin: --target: 'htp' is not a port of it")
    assert "80 (http)" in run.errors[0]


async def test_killing_hairpin_gives_the_requests_back(mesh):
    async with mesh.laptop("alice", "killed") as run:
        run.process.kill()
        await run.process.wait()
        await mesh.answered_by("checkout", "killed")


STUBBORN = """
import os, signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()  # what it starts is ended with it
address = socket.gethostbyname("inventory")
before, code = None, 0
while True:
    code = socket.socket().connect_ex((address, 80))
    if code != before:
        os.write(1, f"{os.getpid()} {code}\\n".encode())
    before = code
"""


async def test_the_command_ends_when_hairpin_is_killed_and_no_call_of_its_hangs(mesh):
    """Its calls fail at once, with ENOSYS; the guard ends it, by force where it heeds no SIGTERM."""
    async with mesh.hairpin(
        "bob", "run", "--mode", "egress", "--intercept", "on", "--", sys.executable, "-c", STUBBORN
    ) as run:

        async def said(code):
            return {line.split()[0] for line in run.output if line.endswith(f" {code}")}

        async def both_connect():
            return len(await said(0)) == 2

        await eventually(both_connect, what="both processes connect")
        run.process.kill()
        await run.ended()  # nobody holds its output any more
        assert len(await said(errno.ENOSYS)) == 2, run.output

        async def gone():  # the one that is killed last closes its output a moment before it has ended
            return not [pid for pid in await said(0) if running(int(pid))]

        await eventually(gone, what="both processes have ended")


KEPT = """
import os, socket, time
address = socket.gethostbyname("inventory")
code = None
while True:
    before, code = code, socket.socket().connect_ex((address, 80))
    if code != before:
        print(os.getpid(), code, flush=True)
    time.sleep(0.01)
"""


async def test_a_command_that_is_to_be_kept_goes_on_and_is_told_by_its_calls(mesh):
    """As one whose debugger holds what was hard to come by."""
    flags = ("--mode", "egress", "--intercept", "on", "--if-killed", "keep")
    async with mesh.hairpin("bob", "run", *flags, "--", sys.executable, "-c", KEPT) as run:

        async def said(code):
            return next((int(line.split()[0]) for line in run.output if line.endswith(f" {code}")), None)

        async def wait_until_said(code):
            return await eventually(lambda: said(code), what=f"a connect gives {code}")

        kept = psutil.Process(await wait_until_said(0))
        try:
            folder = Path((await eventually(lambda: guard_of(kept.pid), what="its guard"))[-1])
            assert folder.is_dir()
            run.process.kill()
            assert await wait_until_said(errno.ENOSYS) == kept.pid

            async def removed():
                return not folder.exists()

            await eventually(removed, what="the folder of keys is removed")
            assert running(kept.pid)
        finally:
            kept.kill()


def guard_of(pid):
    """The command line of the process that waits for hairpin's end; None: there is none yet."""
    lines = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return next((line for line in lines if line[2:5] == [guard.__file__, "keep", str(pid)]), None)


async def test_a_control_plane_that_is_killed_gets_the_session_again(mesh):
    async with mesh.laptop("alice", "again") as run:
        control_plane = next(
            process
            for process in psutil.Process().children(recursive=True)
            if process.cmdline()[1:3] == ["-m", "xds_server"]
        )
        os.kill(control_plane.pid, signal.SIGKILL)
        await run.said("takes its place")
        await mesh.answered_by("laptop of alice", "again")


async def test_a_mesh_that_is_ended_and_made_anew_gets_the_session_again(tmp_path):
    async with contextlib.AsyncExitStack() as first:
        mesh = await first.enter_async_context(held(tmp_path))
        async with mesh.laptop("alice", "anew") as run:
            await first.aclose()
            await run.said("trying on")
            await run.said("the tunnel to hairpin-agent-0 is lost")
            async with held(tmp_path) as mesh:
                await run.said("is gone, the mesh was made anew: session .* takes its place")
                await mesh.answered_by("laptop of alice", "anew")
                await run.end()
            assert sum("is lost" in line for line in run.errors) == 1
