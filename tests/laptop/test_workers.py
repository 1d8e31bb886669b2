"""Programs that fork workers and reload: real ones, in a mesh, on a port that is taken here; steered requests reach them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest

from tests.laptop import builds
from tests.support.builds import MissingError
from tests.support.builds import run as run_build
from tests.support.mesh import echo_mesh, eventually, running_mesh
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120, func_only=True),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp"),
]

WSGI = """
import json, os
def app(environ, start_response):
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"who": "VERSION", "pid": os.getpid(), "port": environ["SERVER_PORT"]}).encode()]
"""
ASGI = """
import json, os
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = json.dumps({"who": "VERSION", "pid": os.getpid(), "port": scope["server"][1]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})
"""
NODE = """
const answer = (request, response) => {
  response.setHeader("connection", "close")  // each request a connection, so that each worker gets some
  response.setHeader("content-type", "application/json")
  response.end(JSON.stringify({who: "VERSION", pid: process.pid, port: request.socket.localPort}))
}
"""
SERVER = NODE + 'require("http").createServer(answer).listen(+process.argv[2], "127.0.0.1")\n'
CLUSTER = (
    'const cluster = require("cluster")\n'
    + NODE
    + "if (cluster.isPrimary) { cluster.fork(); cluster.fork() }\n"
    + 'else require("http").createServer(answer).listen(+process.argv[2], "127.0.0.1")\n'
)


GO = """
package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	panic(http.Serve(listener, http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(response).Encode(map[string]any{"who": "VERSION", "pid": os.Getpid(), "port": port})
	})))
}
"""
# What systemd.socket(5) does: a listener on descriptor 3, meant for the process that this one becomes.
GIVE = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def servers():
    try:
        return builds.part("servers")
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    async with running_mesh(echo_mesh(), tmp_path_factory.mktemp("mesh")) as running:
        yield running


@pytest.fixture
def taken():
    """A port of a stranger, who answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        yield stranger.getsockname()[1]


def environment(servers):
    """Where Python finds the servers, if there are any, and hairpin."""
    packages = [str(servers / "site-packages")] if servers else []
    return {"PYTHONPATH": os.pathsep.join([*packages, str(Path.cwd())])}


@contextlib.asynccontextmanager
async def running(mesh, servers, port, *command):
    """A session whose command takes the requests."""
    arguments = ["run", "--env", "alice", "--target", "checkout:http", "--intercept", "on", "--port", str(port)]
    async with mesh.hairpin("alice", *arguments, "--", *command, environment=environment(servers)) as run:
        await run.said(f"listens on {port}, which is taken here: moved to 127")
        await run.said(rf"moved from {port}\) takes the requests")
        yield run


async def answers(mesh, who, port):
    """Wait until a request is answered by this version, which believes in its port; the process that did.

    The next request may find it about to be reloaded: see `saved`.
    """
    found = {}

    async def by_it():
        found.update(await mesh.ask("alice"))
        return found["who"] == who

    await eventually(by_it, f"requests are answered by {who}")
    assert int(found["port"]) == port
    return found["pid"]


@contextlib.asynccontextmanager
async def saved(source, text):
    """Saved until the block ends: who watches takes the first that it sees for unchanged, on a busy machine even an edit."""

    async def again():
        while True:
            source.write_text(text)
            await asyncio.sleep(5)

    async with asyncio.TaskGroup() as tasks:
        saving = tasks.create_task(again())
        yield
        saving.cancel()


async def of_both_workers(mesh, port):
    seen = set()

    async def both():
        # One request a turn: taken in turns, two would always end at the same worker.
        answer = await mesh.ask("alice")
        if answer["who"] == "first":
            assert int(answer["port"]) == port
            seen.add(answer["pid"])
        return len(seen) == 2

    await eventually(both, "both workers have answered")


@pytest.mark.parametrize("share", [(), ("--reuse-port",)], ids=["inherited", "reuse-port"])
async def test_gunicorns_workers(mesh, servers, taken, tmp_path, share):
    (tmp_path / "service.py").write_text(WSGI.replace("VERSION", "first"))
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{taken}", *share]
    async with running(mesh, servers, taken, *command, "--chdir", str(tmp_path), "service:app") as run:
        await of_both_workers(mesh, taken)
    assert not [line for line in run.errors if "in use" in line]


@pytest.mark.parametrize(("intercept", "named"), [("on", True), ("off", False)])
async def test_a_listener_that_systemd_gave_takes_the_requests(mesh, servers, tmp_path, intercept, named):
    """It listened before the command was there; gunicorn takes it by the process ID that it finds in LISTEN_PID."""
    (tmp_path / "service.py").write_text(WSGI.replace("VERSION", "first"))
    port = free_port()
    chosen = ("--port", str(port)) if named else ()
    arguments = ("run", "--env", "alice", "--target", "checkout:http", "--intercept", intercept, *chosen)
    command = (sys.executable, "-m", "gunicorn", "--chdir", str(tmp_path), "service:app")
    give = (sys.executable, "-c", GIVE, str(port))
    async with mesh.hairpin("alice", *arguments, "--", *command, environment=environment(servers), wrapper=give) as run:
        await run.said(f"at 127.0.0.1:{port} takes the requests$")
        await answers(mesh, "first", port)
    assert "moved" not in "\n".join(run.errors)


async def test_uvicorn_reloads(mesh, servers, taken, tmp_path):
    source = tmp_path / "service.py"
    source.write_text(ASGI.replace("VERSION", "first"))
    command = [sys.executable, "-m", "uvicorn", "--reload", "--reload-dir", str(tmp_path), "--port", str(taken)]
    async with running(mesh, servers, taken, *command, "--app-dir", str(tmp_path), "service:app"):
        before = await answers(mesh, "first", taken)
        async with saved(source, ASGI.replace("VERSION", "second")):
            assert await answers(mesh, "second", taken) != before


async def test_nodemon_restarts(mesh, servers, taken, tmp_path):
    source = tmp_path / "server.js"
    source.write_text(SERVER.replace("VERSION", "first"))
    nodemon = servers / "node_modules" / "nodemon" / "bin" / "nodemon.js"
    command = ["node", str(nodemon), "--quiet", "--watch", str(tmp_path), str(source), str(taken)]
    async with running(mesh, servers, taken, *command) as run:
        before = await answers(mesh, "first", taken)
        async with saved(source, SERVER.replace("VERSION", "second")):
            assert await answers(mesh, "second", taken) != before
    assert len([line for line in run.errors if "moved to" in line]) == 1, "it came back where it was"


@pytest.mark.timeout(300, func_only=True)
async def test_air_builds_anew(mesh, taken, tmp_path):
    """What an edit is compiled to listens where the last binary did."""
    try:
        air = builds.part("air") / "air"
    except MissingError as error:
        pytest.skip(str(error))
    source = tmp_path / "main.go"
    source.write_text(GO.replace("VERSION", "first"))
    (tmp_path / "go.mod").write_text("module service\n\ngo 1.21\n")
    (tmp_path / "built").mkdir()
    build = ["go", "build", "-o", "built/service", "."]
    run_build(build, cwd=tmp_path, CGO_ENABLED="0")  # so that Go's own packages are compiled, however long that takes
    (tmp_path / "air.toml").write_text(
        f"""
root = "{tmp_path}"
tmp_dir = "built"
[build]
cmd = "{" ".join(build)}"
entrypoint = ["built/service"]
args_bin = ["{taken}"]
delay = 50
"""
    )
    command = ["env", f"--chdir={tmp_path}", "CGO_ENABLED=0", str(air), "-c", "air.toml"]
    async with running(mesh, None, taken, *command) as run:
        before = await answers(mesh, "first", taken)
        source.write_text(GO.replace("VERSION", "second"))
        assert await answers(mesh, "second", taken) != before
    assert len([line for line in run.errors if "moved to" in line]) == 1, "it came back where it was"


async def test_workers_of_a_node_cluster(mesh, servers, taken, tmp_path):
    source = tmp_path / "cluster.js"
    source.write_text(CLUSTER.replace("VERSION", "first"))
    async with running(mesh, servers, taken, "node", str(source), str(taken)):
        await of_both_workers(mesh, taken)
