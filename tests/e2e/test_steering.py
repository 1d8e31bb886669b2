"""Who answers: matched requests the laptop of their session, all others the cluster, whatever sessions come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys

import aiohttp
import psutil
import pytest

from hairpin.model.mesh import ENTRY
from tests.support.mesh import eventually, started_by

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

CLUSTER, LAPTOP = "checkout", "laptop of alice"
LISTENERS = r"^listener_manager\.listener_(added|modified|removed)$"


async def test_two_hundred_mixed_requests_each_reach_who_they_are_for(mesh):
    async with mesh.laptop("alice", "alice"):
        gate = asyncio.Semaphore(16)

        async def one(environment):
            async with gate:
                return environment, (await mesh.ask(environment))["who"]

        mixed = [None, "alice", "bob", "alice"] * 50
        answers = await asyncio.gather(*map(one, mixed))
    assert len(answers) == 200
    assert {who for environment, who in answers if environment == "alice"} == {LAPTOP}
    assert {who for environment, who in answers if environment != "alice"} == {CLUSTER}


async def test_the_laptop_learns_who_called_and_in_which_environment(mesh):
    async with mesh.laptop("alice", "alice") as run:
        through_entry = await mesh.ask("alice")
        by_frontend = (await mesh.ask("alice", host="frontend", path="/call?url=http://checkout/orders"))["answer"]
        await run.said(r"-> GET checkout/orders 200 \d+ ms$")
    for answer, caller in ((through_entry, ENTRY), (by_frontend, "frontend")):
        assert answer["who"] == LAPTOP
        assert answer["headers"]["x-env"] == "alice"
        assert f"URI={mesh.mesh.identity(caller)}" in answer["headers"]["x-forwarded-client-cert"]


async def test_a_forged_header_gets_a_client_nothing(mesh):
    async with mesh.laptop("alice", "alice") as alice, mesh.laptop("bob", "bob") as bob:
        sessions = [await run.session() for run in (alice, bob)]
        for forged in (
            {"x-hairpin-session": sessions[0]},
            {"x-hairpin-session": sessions[0], "x-hairpin-served": "unclaimed"},
            {"x-hairpin-served": "via_upstream"},
        ):
            assert (await mesh.ask(headers=forged))["who"] == CLUSTER
            assert (await mesh.ask("carol", headers=forged))["who"] == CLUSTER
        answer = await mesh.ask("alice", headers={"x-hairpin-session": sessions[1], "x-hairpin-served": "unclaimed"})
        assert answer["who"] == LAPTOP
        assert answer["headers"]["x-hairpin-session"] == sessions[0]


async def test_another_environments_requests_are_the_clusters(mesh):
    async with mesh.laptop("alice", "alice"):
        for other in ("bob", "alice2", "Alice", "alic", "alice,bob", " ", "x" * 4000):
            assert (await mesh.ask(other))["who"] == CLUSTER, other


@pytest.mark.parametrize(
    ("flags", "taken", "left"),
    [
        (
            ["--match", "header x-user=42 and path ^/api"],
            [("/api", {"x-user": "42"}), ("/api/orders?n=1", {"x-user": "42", "x-env": "bob"})],
            [("/", {"x-user": "42"}), ("/api", {"x-user": "43"}), ("/api", {}), ("/v1/api", {"x-user": "42"})],
        ),
        (
            ["--env", "alice", "--match", "not path ^/health and (method GET or query debug=1)"],
            [("/", {"x-env": "alice"}), ("/x?debug=1", {"x-env": "alice"})],
            [("/health", {"x-env": "alice"}), ("/", {}), ("/x?debug=1", {})],
        ),
        (
            ["--match", "baggage env=alice or header x-trace~[0-9a-f]{4}"],
            [("/", {"baggage": "a=1, env=alice;p=1"}), ("/", {"x-trace": "09af"})],
            [("/", {"baggage": "env=alice2"}), ("/", {"x-trace": "09afa"}), ("/", {"x-env": "alice"})],
        ),
    ],
)
async def test_a_match_takes_its_requests_and_no_others(mesh, flags, taken, left):
    async with mesh.laptop("alice", None, *flags):
        for requests, who in ((taken, LAPTOP), (left, CLUSTER)):
            for path, headers in requests:
                assert (await mesh.ask(path=path, headers=headers))["who"] == who, (path, headers)


async def test_every_method_is_steered_and_none_is_answered_twice(mesh):
    """Each request reaches one process, once: its key is counted where it arrives."""
    methods = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "REPORT")
    async with mesh.laptop("alice", "alice"), aiohttp.ClientSession() as client:
        for method in methods:
            headers = {"host": "checkout", "x-env": "alice", "x-request-key": method}
            url = f"http://{mesh.mesh.entry.address}/"
            async with client.request(method, url, headers=headers) as response:
                assert (response.status, response.headers["x-who"]) == (200, LAPTOP), method
                assert bool(await response.read()) == (method != "HEAD")
            for environment, arrived in (("alice", 1), (None, 0)):
                assert (await mesh.ask(environment, path=f"/count?key={method}"))["count"] == arrived, method


async def test_a_match_by_method(mesh):
    async with mesh.laptop("alice", "alice", "--match", "method POST"):
        assert (await mesh.ask("alice", method="POST", data=b"1"))["who"] == LAPTOP
        assert (await mesh.ask("alice"))["who"] == CLUSTER


class Stream:
    """Server-sent events that arrive as long as the stream is open."""

    def __init__(self):
        self.events = 0
        self.ended = ""

    async def read(self, url, headers):
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as client:
                async with client.get(url, headers=headers) as response:
                    async for line in response.content:
                        self.events += line.startswith(b"data:")
            self.ended = "by the server"
        except aiohttp.ClientError as error:
            self.ended = repr(error)

    async def goes_on(self):
        seen = self.events

        async def so():
            assert not self.ended, self.ended
            return self.events > seen

        await eventually(so, "the stream goes on")


@contextlib.asynccontextmanager
async def stream(mesh, host, **headers):
    opened = Stream()
    url = f"http://{mesh.mesh.entry.address}/sse?n=0&interval=50"
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(opened.read(url, {"host": host, **headers}))
        try:
            await opened.goes_on()
            yield opened
        finally:
            reader.cancel()


async def test_two_developers_on_one_target_and_a_stream_from_before_the_first(mesh):
    """No other test of this module has a session at frontend, so that the stream is older than its first."""
    target, host = "frontend:http", "frontend"
    failing = [sys.executable, "-c", "import sys; sys.exit('it fails')"]
    async with (
        stream(mesh, host) as opened,
        mesh.traffic(host=host) as everyone,
        mesh.traffic("carol", host=host) as carol,
    ):
        async with (
            mesh.laptop("bob", "bob", target=target) as bob,
            mesh.traffic("bob", host=host) as bobs,
            stream(mesh, host, **{"x-env": "bob"}) as steered,
        ):
            # alice starts and stops
            async with mesh.laptop("alice", "alice", target=target) as alice:
                assert (await mesh.ask("alice", host=host))["who"] == LAPTOP
                assert await alice.end() == 0
            assert (await mesh.ask("alice", host=host))["who"] == "frontend"
            await opened.goes_on()
            await steered.goes_on()
            # her hairpin is killed, and so are her command and her Envoy, but nobody else's
            async with mesh.laptop("alice", "alice", target=target) as alice:
                children = psutil.Process(alice.process.pid).children(recursive=True)
                assert await alice.end(signal.SIGKILL) == -signal.SIGKILL
                await mesh.answered_by("frontend", "alice", host=host)
                await eventually(lambda: all_gone(children), "what it had started has ended")
            await opened.goes_on()
            await steered.goes_on()
            # her process fails at once, or is killed
            failed = await mesh.command("alice", "run", "--env", "alice2", "-t", target, "--", *failing)
            assert failed.process.returncode == 1
            async with mesh.laptop("alice", "alice3", target=target) as alice:
                (command,) = started_by(alice.process.pid, "tests.support.echo")
                command.kill()
                assert await alice.ended() == 128 + signal.SIGKILL
            assert (await mesh.ask("alice3", host=host))["who"] == "frontend"
            await opened.goes_on()
            await steered.goes_on()
            assert bob.process.returncode is None
            assert not [line for line in bob.errors if "lost" in line]
            await asyncio.sleep(0.1)
        await opened.goes_on()
    assert set(bobs) == {"laptop of bob"}
    assert set(everyone) == set(carol) == {"frontend"}
    assert min(everyone.total(), carol.total(), bobs.total()) > 50


async def all_gone(processes):
    return not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def test_a_second_claim_is_refused_and_names_the_owner(mesh):
    async with mesh.laptop("alice", "alice") as alice:
        session = await alice.session()
        for flags in (
            ["--env", "alice"],
            ["--env", "alice", "--match", "path ^/api"],
            ["--match", "header x-env=alice"],
        ):
            refused = await mesh.command("bob", "run", *flags, "-t", "checkout:http", "--", "sleep", "60")
            assert refused.process.returncode == 4
            assert refused.output == []
            for told in ("checkout:80", "x-env=alice", f"session {session} ", "ask alice", "--match"):
                assert told in refused.error
        assert (await mesh.ask("alice"))["who"] == LAPTOP
        async with mesh.laptop("bob", "alice", target="checkout:grpc"):
            pass  # another port is another target


async def test_sessions_are_listed_and_stopped(mesh):
    nothing = ["no sessions: all requests are answered by the cluster"]

    async def free():
        return (await mesh.api("bob", "GET", "/v1/sessions"))[1] == {"items": []}

    await eventually(free, "no session is left of what went before")
    assert (await mesh.command("bob", "sessions")).output == nothing
    async with mesh.laptop("alice", "alice") as alice:
        session = await alice.session()
        port = (await alice.said(r"127\.0\.0\.1:(\d+) takes the requests"))[1]
        listed = await mesh.command("bob", "sessions")
        assert listed.output[0].split()[:4] == ["NAME", "OWNER", "TARGET", "REQUESTS"]
        assert listed.output[1].split()[:-1] == [
            session, "alice", "default/checkout:80", "header", "x-env=alice", "steal", "Active", port, "up",
        ]  # fmt: skip
        document = json.loads("\n".join((await mesh.command("bob", "sessions", "-o", "json")).output))
        assert [(item["metadata"]["name"], item["status"]["owner"]) for item in document["items"]] == [
            (session, "alice")
        ]
        assert "BEGIN CERTIFICATE" not in json.dumps(document)
        others = await mesh.command("bob", "stop", session)
        assert others.process.returncode == 1
        assert f"session {session} is alice's" in others.error
        unknown = await mesh.command("alice", "stop", f"{session}x")
        assert unknown.process.returncode == 3
        assert f"there is no session '{session}x'; yours: {session}" in unknown.error
        assert (await mesh.ask("alice"))["who"] == LAPTOP
        stopped = await mesh.command("alice", "stop", session)
        assert stopped.output == [f"session {session} ended; its requests are the cluster's again"]
        assert (await mesh.ask("alice"))["who"] == CLUSTER
        assert await alice.ended() == 1
        assert any(f"session {session} was ended from elsewhere" in line for line in alice.errors)
    assert (await mesh.command("bob", "sessions")).output == ["no sessions: all requests are answered by the cluster"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_gives_back_at_once(mesh, number):
    async with mesh.laptop("alice", "alice") as run:
        assert (await mesh.ask("alice"))["who"] == LAPTOP
        assert await run.end(number) == 0
        assert (await mesh.ask("alice"))["who"] == CLUSTER
        assert run.error == "hairpin everything is given back"
        assert (await mesh.api("alice", "GET", "/v1/sessions"))[1] == {"items": []}


async def test_without_a_command_ctrl_c_gives_back_too(mesh):
    async with mesh.laptop("alice", "alice") as first:
        port = re.search(r"at (\S+):(\d+) takes the requests", "\n".join(first.errors))[2]
        async with mesh.hairpin("bob", "run", "--env", "bob", "-t", "checkout:http", "--port", port) as run:
            await run.said("takes the requests")
            assert (await mesh.ask("bob"))["who"] == LAPTOP
            assert await run.end() == 128 + signal.SIGINT
        assert (await mesh.ask("bob"))["who"] == CLUSTER
        assert (await mesh.ask("alice"))["who"] == LAPTOP


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo out; echo err >&2; exit 0", 0),
        ("echo out; echo err >&2; exit 7", 7),
        ("echo out; echo err >&2; kill -KILL $$", 128 + signal.SIGKILL),
    ],
)
@pytest.mark.parametrize("flags", [["--env", "alice", "-t", "checkout:http"], ["--mode", "egress"]])
async def test_exit_code_and_output_of_the_command_pass_through(mesh, script, code, flags):
    run = await mesh.command("alice", "run", *flags, "--quiet", "--", "sh", "-c", script)
    assert (run.process.returncode, run.output, run.errors) == (code, ["out"], ["err"])


async def test_the_command_finds_its_session_and_environment(mesh):
    script = 'printf "%s %s" "$HAIRPIN_SESSION" "$HAIRPIN_ENV"'
    run = await mesh.command("alice", "run", "--env", "alice", "-t", "checkout:http", "--", "sh", "-c", script)
    assert run.output == [f"{await run.session()} alice"]


async def test_a_process_that_listens_late_moves_and_goes(mesh, tmp_path):
    """Requests are the cluster's whenever nothing listens, and the session stays."""
    command = ("sh", "-c", RESTARTS, "sh", str(tmp_path))
    async with mesh.hairpin("alice", "run", "--env", "alice", "-t", "checkout:http", "--", *command) as run:
        session = await run.session()
        assert (await mesh.ask("alice"))["who"] == CLUSTER
        for number in (1, 2):
            (tmp_path / str(number)).touch()
            await run.said(f"serving {number}")
            await mesh.answered_by(f"try {number}", "alice")
            assert (await mesh.ask("alice", path="/release?key=unused"))["who"] == f"try {number}"
            (echo,) = started_by(run.process.pid, f"--name try {number}")
            echo.kill()
            await mesh.answered_by(CLUSTER, "alice")

        async def ready():
            return (await mesh.api("alice", "GET", f"/v1/sessions/{session}"))[1]["status"]["phase"] == "Ready"

        await eventually(ready, "the session is there, and nothing is steered")


RESTARTS = f"""
for number in 1 2; do
  while [ ! -e "$1/$number" ]; do sleep 0.1; done
  echo "serving $number" >&2
  {sys.executable} -m tests.support.echo --name "try $number"
done
sleep 60
"""


async def test_twenty_sessions_change_no_listener(mesh):
    proxies = {name: proxy.admin for name, proxy in mesh.supervisor.proxies.items()}
    proxies["the agent's own"] = mesh.agent_admin()

    async def counters():
        return {name: await admin.stats(LISTENERS) for name, admin in proxies.items()}

    async def one(number):
        env = f"env{number}"
        async with mesh.hairpin("alice", "run", "--env", env, "-t", "checkout:http", "--port", port) as run:
            await run.said("takes the requests")
            assert (await mesh.ask(env))["who"] == LAPTOP
            await run.end()
        assert (await mesh.ask(env))["who"] == CLUSTER

    async with mesh.laptop("alice", "alice") as first:
        port = re.search(r"at (\S+):(\d+) takes the requests", "\n".join(first.errors))[2]
        before = await counters()
        for start in range(0, 20, 4):
            await asyncio.gather(*map(one, range(start, start + 4)))
        assert await counters() == before
    assert all(
        set(found) == {f"listener_manager.listener_{w}" for w in ("added", "modified", "removed")}
        for found in before.values()
    )
    assert all(found["listener_manager.listener_modified"] == 0 for found in before.values())
    assert sum(found["listener_manager.listener_added"] for found in before.values()) >= len(proxies)
