"""`hairpin run` from end to end, with the agent's real Envoy; what is steered is asked of the agent directly."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from hairpin.api import write_developer
from tests.support.envoy import eventually
from tests.support.ports import free_port
from tests.support.tunnels import tunnels
from tests.unit.local_proxy.fake_session_api import FakeSessionApi

pytestmark = pytest.mark.envoy

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = ("laptop " + os.environ["HAIRPIN_SESSION"] + self.path).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
print("listening", flush=True)
http.server.HTTPServer.server_bind = lambda s: (__import__("socketserver").TCPServer.server_bind(s), setattr(s, "server_name", ""), setattr(s, "server_port", 0))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Mesh:
    """What `hairpin run` needs of a mesh: the session API and an agent that reports its tunnels."""

    def __init__(self, directory, api, tunnel_parts, agents):
        self.directory, self.api, self.tunnels, self.agents = directory, api, tunnel_parts, agents
        self.config = directory / "alice.yaml"
        write_developer(self.config, api.developer)

    async def report(self):
        """Stands in for the agents' reports."""
        while True:
            state = {agent.settings.name: agent.reports.tunnels for agent in self.agents}
            if state != self.api.tunnels:
                self.api.tunnels = state
                self.api.refresh()
            for agent in self.agents:
                agent.allow(*self.api.sessions)
            await asyncio.sleep(0.02)


@pytest.fixture
async def mesh(tmp_path):
    async with tunnels(tmp_path) as parts:
        agents = [await parts.agent("agent-0")]
        api = FakeSessionApi(tmp_path, parts.authority)
        api.agents = tuple(agent.address for agent in agents)
        await api.start()
        mesh = Mesh(tmp_path, api, parts, agents)
        # A fixture begins and ends in different tasks, where a TaskGroup can't span the two.
        reporting = asyncio.get_running_loop().create_task(mesh.report())
        yield mesh
        reporting.cancel()
        await asyncio.wait([reporting])
        await api.stop()


class Run:
    """`hairpin run` as a process."""

    def __init__(self, process):
        self.process, self.errors, self.output = process, "", ""

    async def said(self, text):
        def check():
            # Its end alone is heard of before its last lines.
            over = self.process.returncode is not None and self.process.stderr.at_eof()
            assert text in self.errors or not over, f"ended with {self.process.returncode}: {self.errors}"
            return text in self.errors

        await eventually(check, what=f"{text!r} on stderr")

    async def _collect(self, stream, name):
        while line := await stream.readline():
            setattr(self, name, getattr(self, name) + line.decode())


@contextlib.asynccontextmanager
async def hairpin(mesh, *arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hairpin", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HAIRPIN_CONFIG": str(mesh.config)}, start_new_session=True,
    )  # fmt: skip
    run = Run(process)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run._collect(process.stdout, "output"))
        tasks.create_task(run._collect(process.stderr, "errors"))
        try:
            yield run
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 20)
                except TimeoutError:
                    process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def serving(mesh, *flags):
    """`hairpin run` of a server, steered."""
    command = (sys.executable, "-c", SERVER, "0")
    async with hairpin(mesh, "run", "--env", "alice", "-t", "checkout", *flags, "--", *command) as run:
        await eventually(lambda: active(mesh), what="the session is active")
        await eventually(lambda: arrives(mesh), what="its Envoy knows the port")  # which reads it from a file
        yield run


def active(mesh):
    return [session.name for session in mesh.api.sessions.values() if session.status.phase == "Active"]


async def answer(mesh, path="/"):
    """Who answers a steered request."""
    name = next(iter(mesh.api.sessions), "none")
    got = await mesh.agents[0].get(name, path)
    return got.body.decode() if got.status == 200 else got.status


async def arrives(mesh):
    return isinstance(await answer(mesh), str)


async def test_requests_arrive_at_the_command_and_all_is_given_back_at_its_end(mesh):
    async with serving(mesh) as run:
        assert await answer(mesh, "/cart") == "laptop alice-1/cart"
        await run.said("takes the requests")
        run.process.terminate()
        assert await run.process.wait() == 128 + signal.SIGTERM
    assert mesh.api.sessions == {}
    assert "listening" in run.output
    assert "session alice-1: requests of default/checkout:80 where header x-env=alice" in run.errors
    assert "takes the requests" in run.errors
    assert mesh.api.calls[-1] == "DELETE alice-1"


async def test_the_exit_code_is_the_commands_and_arguments_arrive_untouched(mesh):
    command = (sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "--port", "a b", "--")
    async with hairpin(mesh, "run", "--env", "alice", "-t", "checkout", "--", *command) as run:
        assert await run.process.wait() == 7
    name = Path(sys.executable).name
    assert f"hairpin {name} ended with 7 and never listened: nothing was taken\n" in run.errors
    assert run.output == "['--port', 'a b', '--']\n"
    assert mesh.api.sessions == {}


async def test_the_commands_requests_leave_through_the_agent(mesh):
    """By proxy variables: there is no cluster here, and what intercepted connections call on loopback is this machine's own."""
    source = (
        "import os, urllib.request as r\n"
        f"print(r.urlopen('http://127.0.0.2:{mesh.api.port + 0}/v1/version', timeout=10).status)"
    )
    async with hairpin(
        mesh, "run", "--mode", "egress", "--intercept", "off", "--", sys.executable, "-c", source
    ) as run:
        await run.process.wait()
    assert "<- GET 127.0.0.2" in run.errors


async def test_nothing_is_steered_while_nothing_listens(mesh):
    async with hairpin(mesh, "run", "--env", "alice", "-t", "checkout", "--", "sleep", "60") as run:
        await run.said("the tunnel to agent-0 is up")
        await asyncio.sleep(0.3)
        assert active(mesh) == []


async def test_a_lost_tunnel_is_dialled_again_at_once(mesh):
    async with serving(mesh) as run:
        begin = time.monotonic()
        os.kill(mesh.agents[0].envoy.pid, signal.SIGKILL)
        await run.said("the tunnel to agent-0 is lost")
        await eventually(lambda: active(mesh), what="the tunnel is back")
        # Envoy alone would look after ten seconds; where all took so long, it was told to.
        assert time.monotonic() - begin < 9 or "tunnel/agent-0/0" not in tunnels_of(run)
        assert await answer(mesh) == "laptop alice-1/"
        assert run.errors.count("is lost") == 1


def tunnels_of(run):
    """The tunnels that its Envoy is to have, by the file that says so: `tunnel/REPLICA/HOW OFTEN IT WAS DIALLED AGAIN`."""
    [envoy] = [p for p in psutil.Process(run.process.pid).children(recursive=True) if p.name().startswith("envoy")]
    bootstrap = json.loads(Path(envoy.cmdline()[envoy.cmdline().index("--config-path") + 1]).read_text())
    file = Path(bootstrap["dynamic_resources"]["lds_config"]["path_config_source"]["path"])
    return [resource["name"] for resource in json.loads(file.read_text())["resources"]]


async def test_a_session_that_is_forgotten_is_made_anew(mesh):
    async with serving(mesh) as run:
        await mesh.api.stop()
        await run.said("trying on")
        mesh.api.forget()
        await mesh.api.start()
        await run.said(
            "session alice-1 is gone, the control plane does not know it any more: session alice-2 takes its place"
        )
        await eventually(lambda: active(mesh) == ["alice-2"], what="the new session is active")
        assert await answer(mesh) == "laptop alice-1/"  # the command keeps the name it was started with


async def test_a_mesh_made_anew_elsewhere_is_found_by_its_file(mesh):
    async with serving(mesh) as run:
        await mesh.api.stop()
        await run.said("trying on")
        mesh.api.forget()
        mesh.api.port, mesh.api.token = free_port(), "new"
        write_developer(mesh.config, mesh.api.developer)
        await asyncio.sleep(1.5)  # the file is there before who it speaks of
        await mesh.api.start()
        await run.said("session alice-1 is gone, the mesh was made anew: session alice-2 takes its place")
        await eventually(lambda: active(mesh) == ["alice-2"], what="the new session is active")
        assert run.errors.count("made anew") == 1
        assert "can't be claimed again" not in run.errors


async def test_a_mesh_made_anew_that_refuses_the_old_token_is_found_by_its_file(mesh):
    async with serving(mesh) as run:
        await mesh.api.stop()
        mesh.api.forget()
        mesh.api.token = "new"
        calls = len(mesh.api.calls)
        await mesh.api.start()
        await eventually(lambda: len(mesh.api.calls) > calls, what="it is refused")
        write_developer(mesh.config, mesh.api.developer)
        await run.said("the mesh was made anew: session alice-2 takes its place")
        await eventually(lambda: active(mesh) == ["alice-2"], what="the new session is active")


async def test_a_tunnel_lost_while_the_control_plane_is_away_is_told_once(mesh):
    async with serving(mesh) as run:
        await mesh.api.stop()
        await run.said("trying on")
        await mesh.agents[0].envoy.stop()
        await run.said("the tunnel to agent-0 is lost")
        calls = len(mesh.api.calls)
        await mesh.api.start()
        await eventually(lambda: mesh.api.calls[calls:], what="the session is watched again")
        run.process.terminate()
        await run.process.wait()
    assert run.errors.count("is lost") == 1


async def test_a_session_whose_lease_ran_out_is_made_anew(mesh):
    async with serving(mesh) as run:
        session = mesh.api.sessions["alice-1"]
        mesh.api._update(session, tunnels=())
        mesh.api.expire("alice-1")
        await run.said("its lease ran out")
        await eventually(lambda: active(mesh) == ["alice-2"], what="the new session is active")


async def test_a_session_that_was_stopped_ends_the_command(mesh):
    async with serving(mesh) as run:
        async with hairpin(mesh, "stop", "alice-1") as stop:
            assert await stop.process.wait() == 0
        assert await run.process.wait() == 1
    assert stop.output == "session alice-1 ended; its requests are the cluster's again\n"
    assert "hairpin: session alice-1 was ended from elsewhere" in run.errors


async def test_the_certificate_is_renewed_and_the_tunnel_lives_on(mesh):
    mesh.api.lifetime = timedelta(seconds=8)
    async with serving(mesh) as run:
        await eventually(lambda: "PATCH alice-1 certificateRequest" in mesh.api.calls, what="renewal")
        assert await answer(mesh) == "laptop alice-1/"
        assert "lost" not in run.errors


async def test_a_running_process_is_served_until_ctrl_c(mesh):
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, "0", stdout=asyncio.subprocess.PIPE, env={**os.environ, "HAIRPIN_SESSION": "own"}
    )
    try:
        await server.stdout.readline()
        port = (await eventually(lambda: psutil.Process(server.pid).net_connections(), what="it listens"))[0].laddr.port
        async with hairpin(mesh, "run", "--env", "alice", "-t", "checkout", "--port", str(port)) as run:
            await eventually(lambda: active(mesh), what="the session is active")
            await eventually(lambda: arrives(mesh), what="its Envoy knows the port")
            assert await answer(mesh) == "laptop own/"
            await run.said("give the process http_proxy=http://127.0.0.1:")
            run.process.send_signal(signal.SIGINT)
            assert await run.process.wait() == 130
        assert mesh.api.sessions == {}
    finally:
        server.kill()
        await server.wait()
        server._transport.close()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["-t", "chekout", "--env", "alice"], "no service 'chekout'; did you mean checkout?", 3),
        (["-t", "checkout"], "--env leaves open which requests to take", 2),
        (["--env", "alice"], "--target names nothing whose requests to take", 2),
    ],
)
async def test_wrong_flags_end_in_one_line(mesh, arguments, message, code):
    async with hairpin(mesh, "run", *arguments, "--", "true") as run:
        assert await run.process.wait() == code
    assert message in run.errors
    assert run.errors.count("\n") == 1


async def test_a_second_claim_is_refused_by_the_owners_name(mesh):
    async with serving(mesh):
        async with hairpin(mesh, "run", "-t", "checkout", "--env", "alice", "--", "true") as run:
            assert await run.process.wait() == 4
    assert run.errors == "hairpin: alice holds these requests with session alice-1\n"


async def test_a_control_plane_that_is_down_is_named(mesh):
    await mesh.api.stop()
    async with hairpin(mesh, "run", "-t", "checkout", "--env", "alice", "--", "true") as run:
        assert await run.process.wait() == 5
    assert f"the control plane at https://127.0.0.1:{mesh.api.port} can't be reached" in run.errors
    assert "`hairpin mesh up` starts it" in run.errors


async def test_a_command_that_is_missing_claims_nothing(mesh):
    async with hairpin(mesh, "run", "-t", "checkout", "--env", "alice", "--", "no-such-program") as run:
        assert await run.process.wait() == 127
    assert run.errors.startswith("hairpin: no-such-program: command not found")
    assert mesh.api.calls == []


async def test_killing_hairpin_ends_its_envoy_and_the_command(mesh):
    async with serving(mesh) as run:
        below = psutil.Process(run.process.pid).children(recursive=True)
        assert {"envoy"} < {process.name()[:5] for process in below}
        run.process.kill()
        await run.process.wait()
        await eventually(lambda: not any(alive(process) for process in below), what="nothing of it lives on")


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_killed_envoy_is_started_again(mesh):
    async with serving(mesh) as run:
        below = psutil.Process(run.process.pid).children(recursive=True)
        next(process for process in below if process.name().startswith("envoy")).kill()
        await run.said("is lost")
        await eventually(lambda: active(mesh), what="the tunnel is back")
        assert await answer(mesh) == "laptop alice-1/"


async def test_a_port_that_closes_gives_the_requests_back_and_one_that_moves_takes_them_along(mesh):
    source = (
        "import sys, http.server\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "import socketserver, threading, signal, time\n"
        "while True:\n"
        "    s = socketserver.TCPServer(('127.0.0.1', 0), H)\n"
        "    threading.Thread(target=s.serve_forever).start()\n"
        "    signal.sigwait({signal.SIGUSR1}); s.shutdown(); s.server_close()\n"
        "    signal.sigwait({signal.SIGUSR1})\n"
    )
    source = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n" + source
    command = (sys.executable, "-c", source)
    async with hairpin(mesh, "run", "--env", "alice", "-t", "checkout", "--", *command) as run:
        await eventually(lambda: active(mesh), what="the session is active")
        first = mesh.api.sessions["alice-1"].spec.local_port
        run.process.send_signal(signal.SIGUSR1)  # passed on to the command
        await run.said("nothing listens any more: the cluster answers until it comes back")
        await eventually(lambda: not active(mesh), what="the requests are the cluster's")
        run.process.send_signal(signal.SIGUSR1)
        await eventually(lambda: active(mesh), what="the session is active again")
        assert mesh.api.sessions["alice-1"].spec.local_port != first
        await eventually(lambda: arrives(mesh), what="its Envoy knows the new port")


async def test_ctrl_c_while_claiming_leaves_nothing_claimed(mesh):
    mesh.api.create_seconds = 0.5
    async with hairpin(mesh, "run", "-t", "checkout", "--env", "alice", "--", "true") as run:
        await eventually(lambda: mesh.api.sessions, what="the session is made, its answer under way")
        run.process.send_signal(signal.SIGINT)
        assert await run.process.wait() == 128 + signal.SIGINT
    assert mesh.api.calls == ["POST", "DELETE alice-1"]
    assert mesh.api.sessions == {}


async def test_a_taken_egress_port_claims_nothing(mesh):
    port = mesh.api.port
    arguments = ("run", "-t", "checkout", "--env", "alice", "--egress-port", str(port), "--", "true")
    async with hairpin(mesh, *arguments) as run:
        assert await run.process.wait() == 2
    assert f"hairpin: --egress-port: {port} can't be listened on" in run.errors
    assert mesh.api.calls == []


async def test_a_long_temporary_folder_is_no_hindrance(mesh, monkeypatch):
    long = mesh.directory / ("d" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    async with serving(mesh):
        assert await answer(mesh) == "laptop alice-1/"


async def test_a_missing_envoy_leaves_nothing_claimed(mesh, monkeypatch):
    monkeypatch.setenv("HAIRPIN_ENVOY", "/no/envoy")
    async with hairpin(mesh, "run", "-t", "checkout", "--env", "alice", "--", "true") as run:
        assert await run.process.wait() == 2
    assert "HAIRPIN_ENVOY: '/no/envoy'" in run.errors
    assert mesh.api.sessions == {}


async def test_quiet_says_nothing(mesh):
    async with serving(mesh, "-q") as run:
        await answer(mesh)
        run.process.terminate()
        await run.process.wait()
    assert run.errors == ""


async def test_sessions_are_listed(mesh):
    async with serving(mesh):
        async with hairpin(mesh, "sessions") as run:
            assert await run.process.wait() == 0
    header, line = run.output.splitlines()
    assert header.split() == ["NAME", "OWNER", "TARGET", "REQUESTS", "MODE", "PHASE", "PORT", "TUNNEL", "AGE"]
    assert line.split()[:3] == ["alice-1", "alice", "default/checkout:80"]
    assert "header x-env=alice" in line
