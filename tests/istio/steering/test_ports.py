"""Which port requests come to, beside a real mesh: the target's settings say what the program listens on, its Service what is taken.

Everything is taken on the laptop: strangers, who answer nobody, listen on the target's number and on another.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.istio.steering.test_target import binding
from tests.laptop import builds
from tests.support.builds import MissingError
from tests.support.cluster.images import PYTHON, PYTHON_ENVIRONMENT
from tests.support.cluster.processes import words_of
from tests.support.istio_mesh import SHOP
from tests.support.mesh import eventually
from tests.support.netns import socket_in

pytestmark = [pytest.mark.timeout(240)]

TARGET, SERVICE, NUMBER = "inventory", "inventory", 9090
"""The Service's port is 80; this is the container's, which PORT in its environment says too."""
OTHER = 9091
ROLES = {"alice": "hairpin-target-exec", "bob": "hairpin-target-config"}
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
SERVERS = "/mnt/servers"
WSGI = """
import json, os
def app(environ, start_response):
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"who": "VERSION", "pid": os.getpid(), "port": int(environ["SERVER_PORT"])}).encode()]
"""
# For each port a folder may hold a file of its number: while it does, the port is listened on.
PROGRAM = """
import http.server, json, os, sys, threading, time
folder, token = sys.argv[1:]
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        own = {"port": self.connection.getsockname()[1], "server": self.server.socket.getsockname()[1]}
        text = json.dumps({"who": "laptop", "token": os.path.exists(token), **own}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.close_connection = True
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def server_bind(self):  # without a look at the host's name, which is nobody's here
        http.server.socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "laptop", self.server_address[1]
print(os.environ["PORT"], flush=True)
servers = {}
while True:
    wanted = {int(name) for name in os.listdir(folder)}
    for port in wanted - servers.keys():
        servers[port] = Server(("127.0.0.1", port), Answer)
        threading.Thread(target=servers[port].serve_forever, args=(0.02,), daemon=True).start()
    for port in servers.keys() - wanted:
        servers[port].shutdown()
        servers.pop(port).server_close()
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
async def ports(mesh):
    """The mesh, with the roles bound and both ports taken on the laptop."""
    mesh.cluster.laptop.command("true")  # its file systems are there then
    for user, role in ROLES.items():
        await mesh.cluster.client.apply(binding(user, role, name=f"ports-{user}"))
    with contextlib.ExitStack() as open_sockets:
        for port in (NUMBER, OTHER):
            stranger = open_sockets.enter_context(socket_in(mesh.cluster.outside.network))
            stranger.bind(("127.0.0.1", port))
            stranger.listen()
        yield mesh
    for user in ROLES:
        await mesh.cluster.client.delete("RoleBinding", f"ports-{user}", SHOP)


@pytest.fixture
def servers(ports):
    """Where the laptop has gunicorn."""
    try:
        built = builds.part("servers")
    except MissingError as error:
        pytest.skip(str(error))
    ports.cluster.host.run("mkdir", "-p", SERVERS)
    ports.cluster.host.run("mount", "--bind", str(built), SERVERS)
    yield SERVERS
    ports.cluster.host.run("umount", "--lazy", SERVERS)


class Switches:
    """Which ports the program listens on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, port: int) -> None:
        (self._folder / str(port)).touch()

    def close(self, port: int) -> None:
        (self._folder / str(port)).unlink()


@contextlib.asynccontextmanager
async def running(mesh, user, *flags):
    """`hairpin run` of the program, which takes its own port's number from the target's environment; and its switches."""
    home = mesh.cluster.laptop.home
    mesh.cluster.host.run("rm", "-rf", f"{home}/ports")
    mesh.cluster.host.run("mkdir", f"{home}/ports")
    command = (PYTHON, "-c", PROGRAM, f"{home}/ports", TOKEN)
    async with mesh.hairpin(user, *arguments(user, *flags), "--", *command) as run:

        async def begun():
            return run.output == [str(NUMBER)]

        await eventually(begun, "the program has the target's environment")
        yield run, Switches(mesh.cluster.host.inside(home) / "ports")


def arguments(user, *flags):
    return ("run", "--env", user, "--target", TARGET, "-n", SHOP, "--intercept", "on", *flags)


async def answered(mesh, user, port):
    """Wait until requests of this environment are answered by the laptop, at the port that it believes in."""

    async def so():
        answer = await mesh.ask(user, host=SERVICE)
        assert (answer["who"], answer.get("port"), answer.get("server")) == ("laptop", port, port)
        return True

    await eventually(so, f"requests of {user} are answered at {port}")
    return await mesh.ask(user, host=SERVICE)


async def shown(mesh, run, user):
    """The port that `hairpin sessions` shows of a run's session."""
    name = await run.session()
    listed = await mesh.command(user, "sessions", "-n", SHOP)
    header, *lines = listed.output
    column = header.index("PORT")
    return next(line[column:].split()[0] for line in lines if line.startswith(name))


async def is_told(mesh, run, port):
    """Wait until the cluster knows where the program listens."""
    name = await run.session()

    async def so():
        return (await mesh.cluster.client.get("Session", name, SHOP))["spec"].get("localPort") == port

    await eventually(so, f"the session says {port}")


@pytest.mark.parametrize("user", ROLES)
async def test_a_taken_port_that_opens_late_closes_and_opens_again(ports, user):
    """Where the program may listen only is known from the target's environment; its own number is what it ever sees."""
    async with running(ports, user) as (run, switches):
        await run.said("nothing listens yet: the cluster answers")
        await ports.answered_by(SERVICE, user, host=SERVICE)
        assert await shown(ports, run, user) == "-"
        moves = rf"listens on {NUMBER}, which is taken here: moved to 127.0.0.1:(\d+)$"
        takes = rf"at 127.0.0.1:(\d+) \(moved from {NUMBER}\) takes the requests$"

        switches.open(NUMBER)
        real = (await run.said(moves))[1]
        assert (await run.said(takes))[1] == real
        answer = await answered(ports, user, NUMBER)
        assert answer["token"] == (user == "alice")  # of the pod's account, mounted where it is in the pod
        assert (await ports.ask(host=SERVICE))["who"] == SERVICE  # who is in no environment
        await is_told(ports, run, int(real))
        assert await shown(ports, run, user) == real
        assert (await ports.cluster.outside.request(f"http://127.0.0.1:{real}/")).json["port"] == NUMBER

        start = len(run.errors)
        switches.close(NUMBER)
        await run.said_since(start, "nothing listens any more: the cluster answers until it comes back")
        await ports.answered_by(SERVICE, user, host=SERVICE)
        await is_told(ports, run, None)

        start = len(run.errors)
        switches.open(NUMBER)
        assert (await run.said_since(start, takes))[1] == real
        await answered(ports, user, NUMBER)
        await is_told(ports, run, int(real))
        assert len([line for line in run.errors if "moved to" in line]) == 1, "it came back where it was"
    how = "by exec" if user == "alice" else "by its spec: no right to exec"
    assert how in "\n".join(run.errors)


async def test_of_several_ports_the_targets_number_is_taken_unless_another_is_named(ports):
    """Its number is the container's; the Service's 80, which callers know, is nobody's port here."""
    async with running(ports, "alice") as (run, switches):
        switches.open(OTHER)
        await run.said(rf"\(moved from {OTHER}\) takes the requests$")
        await answered(ports, "alice", OTHER)
        switches.open(NUMBER)
        await run.said(
            rf"\(moved from {NUMBER}\) takes the requests; it also listens on {OTHER}: --port {OTHER} would choose that"
        )
        await answered(ports, "alice", NUMBER)
    async with running(ports, "alice", "--port", str(OTHER)) as (run, switches):
        switches.open(NUMBER)
        await run.said(
            f"nothing listens on port {OTHER} yet: the cluster answers .the command listens on {NUMBER}: "
            f"did you mean --port {NUMBER}"
        )
        await ports.answered_by(SERVICE, "alice", host=SERVICE)
        switches.open(OTHER)
        await run.said(
            rf"\(moved from {OTHER}\) takes the requests; it also listens on {NUMBER}: --port {NUMBER} would choose"
        )
        await answered(ports, "alice", OTHER)


async def test_forked_workers_share_the_requests_and_a_reload_loses_none(ports, servers):
    """gunicorn's: all workers inherit one listener, which its reload leaves open."""
    home = ports.cluster.laptop.home
    source = ports.cluster.host.inside(home) / "ported.py"
    source.write_text(WSGI.replace("VERSION", "first"))
    packages = f"{servers}/site-packages:{PYTHON_ENVIRONMENT['PYTHONPATH']}"
    command = (PYTHON, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{NUMBER}", "--chdir", str(home), "ported:app")
    before, after = set(), set()

    async def both(who, seen):
        answer = await ports.ask("alice", host=SERVICE)
        if answer["who"] == who:
            assert answer["port"] == NUMBER
            seen.add(answer["pid"])
        return len(seen) == 2

    async with ports.hairpin("alice", *arguments("alice"), "--", *command, environment={"PYTHONPATH": packages}) as run:
        await run.said(rf"\(moved from {NUMBER}\) takes the requests$")
        await eventually(lambda: both("first", before), "both workers have answered")
        await ports.answered_by("first", "alice", host=SERVICE)
        async with ports.traffic("alice", host=SERVICE) as counts:
            await eventually(lambda: some(counts, "first"), "requests are answered before")
            source.write_text(WSGI.replace("VERSION", "second"))
            os.kill(gunicorn(run), signal.SIGHUP)
            await eventually(lambda: both("second", after), "both new workers have answered")
            await eventually(lambda: some(counts, "second"), "requests are answered after")
        assert set(counts) == {"first", "second"}, counts
        assert not before & after
        assert not [line for line in run.errors if "nothing listens" in line and "yet" not in line]


async def some(counts, who):
    return counts[who]


def gunicorn(run):
    """The process that the others were forked from."""
    for process in psutil.Process(run.process.pid).children(recursive=True):
        words = words_of(process)
        if "ported:app" in words and "hairpin" not in words:
            return process.pid
    raise AssertionError("gunicorn does not run")
