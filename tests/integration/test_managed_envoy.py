"""The managed Envoy, with the real binary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import stat
import sys
import threading
from pathlib import Path

import aiohttp
import psutil
import pytest

from hairpin.envoy import config
from hairpin.envoy.admin import AdminClient
from hairpin.envoy.binary import envoy_version, find_envoy
from hairpin.envoy.failure import RefusedError
from hairpin.envoy.process import ManagedEnvoy, validate
from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError, UnavailableError
from hairpin.unix_sockets import MAX_SOCKET_PATH
from tests.support.envoy import HOST, answer, eventually, http_listener, listening, running, static

pytestmark = pytest.mark.envoy

LEASHES = ["signal", "pipe"] if sys.platform == "linux" else ["pipe"]


@pytest.fixture
def port(ports):
    return ports()


def hello(port: int, **manager) -> config.Config:
    return static(http_listener(port, answer("hello"), **manager))


def no_envoys() -> bool:
    return not [child for child in psutil.Process().children(recursive=True) if running(child.pid) and is_envoy(child)]


def is_envoy(process: psutil.Process) -> bool:
    try:
        return "envoy" in process.name()
    except psutil.NoSuchProcess:  # just now
        return False


async def slow_service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request after half a second."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(0.5)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow")
    writer.close()


# Its life.


@pytest.mark.parametrize("leash", LEASHES)
async def test_up_inside_the_block_and_gone_after_it(port, tmp_path, http, leash):
    envoy = ManagedEnvoy("e", hello(port), tmp_path, leash=leash)
    assert envoy.pid is None
    async with envoy:
        assert envoy.pid is not None
        assert await envoy.admin.ready()
        assert (await http(f"http://{HOST}:{port}/")).text == "hello"
        pid = envoy.pid
        assert os.getsid(pid) != os.getsid(0), "a terminal's Ctrl-C doesn't reach it"
    assert envoy.pid is None
    assert not running(pid)
    assert not (tmp_path / "admin.sock").exists()
    assert not await envoy.admin.ready()


async def test_its_files_are_private(port, tmp_path):
    directory = tmp_path / "new" / "envoy"
    async with ManagedEnvoy("e", hello(port), directory):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}
        assert modes == {"envoy": 0o700, "bootstrap.json": 0o600, "admin.sock": 0o600}


async def test_start_stop_and_start_again(port, tmp_path, http):
    envoy = ManagedEnvoy("e", hello(port), tmp_path)
    await envoy.stop()
    for _ in range(2):
        await envoy.start()
        await envoy.start()
        assert (await http(f"http://{HOST}:{port}/")).status == 200
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(envoy.stop())
        assert envoy.pid is None
    assert no_envoys()


async def test_run_in_a_group_starts_and_ends_with_stop(port, tmp_path):
    exits: list[int] = []
    envoy = ManagedEnvoy("e", hello(port), tmp_path, on_exit=exits.append)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(envoy.run())
        await eventually(lambda: envoy.pid, what="it is started")
        await eventually(envoy.admin.ready, what="it is ready")
        await envoy.stop()
    assert (exits, envoy.restarts) == ([], 0)


async def test_run_cancelled_ends_it(port, tmp_path):
    envoy = ManagedEnvoy("e", hello(port), tmp_path)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(envoy.run())
        await eventually(lambda: envoy.pid, what="it is started")
        task.cancel()
    assert task.cancelled()
    assert envoy.pid is None
    assert no_envoys()


async def test_what_the_block_raises_comes_out_as_it_is(port, tmp_path):
    with pytest.raises(ValueError, match=r"^mine$"):
        async with ManagedEnvoy("e", hello(port), tmp_path):
            raise ValueError("mine")
    assert no_envoys()


async def test_restart_keeps_the_configuration_and_is_no_exit(port, tmp_path, http):
    exits: list[int] = []
    async with ManagedEnvoy("e", hello(port), tmp_path, on_exit=exits.append) as envoy:
        before = envoy.pid
        await envoy.restart()
        assert envoy.pid not in (None, before)
        assert (await http(f"http://{HOST}:{port}/")).text == "hello"
    assert (exits, envoy.restarts) == ([], 0)


# Its death.


@pytest.mark.parametrize("leash", LEASHES)
async def test_killed_it_comes_back_every_time(port, tmp_path, http, leash, caplog):
    exits: list[int] = []
    async with ManagedEnvoy("e", hello(port), tmp_path, on_exit=exits.append, leash=leash) as envoy:
        for count in (1, 2, 3):
            assert envoy.pid is not None
            os.kill(envoy.pid, signal.SIGKILL)
            await eventually(lambda count=count: envoy.restarts == count and envoy.pid, what="it is restarted")
            await eventually(envoy.admin.ready, what="it is ready")
            assert (await http(f"http://{HOST}:{port}/")).text == "hello"
    assert exits == [-signal.SIGKILL] * 3
    assert caplog.messages == ["e: Envoy ended with SIGKILL and is started again"] * 3


async def test_not_restarted_when_that_is_not_wanted(port, tmp_path):
    exits: list[int] = []
    async with ManagedEnvoy("e", hello(port), tmp_path, on_exit=exits.append, restart=False) as envoy:
        assert envoy.pid is not None
        os.kill(envoy.pid, signal.SIGKILL)
        await eventually(lambda: exits, what="the exit is reported")
        await asyncio.sleep(0.2)
        assert (envoy.pid, envoy.restarts, exits) == (None, 0, [-signal.SIGKILL])


async def test_a_port_taken_meanwhile_is_waited_for(port, tmp_path, http, caplog):
    async with ManagedEnvoy("e", hello(port), tmp_path) as envoy:
        assert envoy.pid is not None
        os.kill(envoy.pid, signal.SIGKILL)
        with contextlib.ExitStack() as stack:
            taken = False
            while not taken:  # no await: the loop hears of the end only after the port is taken
                with contextlib.suppress(OSError):
                    stack.enter_context(listening(port))
                    taken = True
            await eventually(lambda: sum("the port is taken by" in m for m in caplog.messages) > 1, what="two attempts")
            assert envoy.restarts == 0
        await eventually(lambda: envoy.restarts, what="it is restarted")
        await eventually(envoy.admin.ready, what="it is ready")
        assert (await http(f"http://{HOST}:{port}/")).text == "hello"


@pytest.mark.parametrize("leash", LEASHES)
@pytest.mark.parametrize("killer", [signal.SIGKILL, signal.SIGTERM])
async def test_it_does_not_outlive_a_killed_parent(port, tmp_path, leash, killer):
    command = [sys.executable, "-m", "tests.support.envoy_owner", str(port), str(tmp_path), leash]
    owner = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    envoy = psutil.Process(int(await owner.stdout.readline()))
    family = [envoy, *envoy.children(recursive=True)]
    assert len(family) == (1 if leash == "signal" else 2)
    assert all(running(p.pid) for p in family)
    owner.send_signal(killer)
    await owner.wait()
    await eventually(lambda: not any(running(p.pid) for p in family), what="Envoy and its watcher are gone")


async def test_started_from_a_thread_it_outlives_neither_loop_nor_process(port, tmp_path):
    """PR_SET_PDEATHSIG is tied to the thread: there the other leash must be chosen."""
    pids: list[int | None] = []

    async def run() -> None:
        async with ManagedEnvoy("e", hello(port), tmp_path) as envoy:
            pids.append(envoy.pid)
            pids.append(len(psutil.Process(envoy.pid).children()))

    await asyncio.to_thread(lambda: asyncio.run(run()))
    assert len(pids) == 2
    assert pids[1] == 1, "the watcher"
    assert no_envoys()


# Cancellation.


@pytest.mark.parametrize("leash", LEASHES)
async def test_cancelled_at_any_moment_of_its_start_nothing_is_left(port, tmp_path, leash):
    finished = 0
    for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16):
        envoy = ManagedEnvoy("e", hello(port), tmp_path, leash=leash)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(envoy.start())
            await asyncio.sleep(delay)
            task.cancel()
        finished += not task.cancelled()
        if not task.cancelled():
            await envoy.stop()
        assert envoy.pid is None
        await eventually(no_envoys, what="no Envoy is left")
    assert finished < 8


async def test_stopped_while_it_starts(port, tmp_path):
    envoy = ManagedEnvoy("e", waiting(port), tmp_path)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(asyncio.wait_for(asyncio.shield(started(envoy)), 30))
        await eventually(lambda: envoy.pid, what="it runs")
        await envoy.stop()
    assert "was stopped before it was ready" in task.result()
    assert no_envoys()


async def started(envoy: ManagedEnvoy) -> str:
    try:
        await envoy.start()
    except UnavailableError as e:
        return str(e)
    return ""


async def silent_service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers no request."""
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


async def test_cancelled_while_it_drains_it_is_killed_at_once(port, tmp_path, http):
    server = await asyncio.start_server(silent_service, HOST, 0)
    upstream = config.static_cluster("slow", config.tcp(HOST, server.sockets[0].getsockname()[1]))
    route = {"match": {"prefix": "/"}, "route": {"cluster": "slow", "timeout": "0s"}}
    envoy = ManagedEnvoy("e", static(http_listener(port, route), clusters=(upstream,)), tmp_path, drain_seconds=60)
    async with server:
        await envoy.start()
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(outcome(http, f"http://{HOST}:{port}/"))
            await eventually(lambda: active_requests(envoy), what="the request is under way")
            stop = tasks.create_task(envoy.stop())
            await eventually(lambda: draining(envoy), what="it drains")
            stop.cancel()
        assert stop.cancelled()
        assert envoy.pid is None
        assert request.result() == 0
    assert no_envoys()


async def active_requests(envoy: ManagedEnvoy) -> int:
    return (await envoy.admin.stats(r"^http\.http\.downstream_rq_active$")).get("http.http.downstream_rq_active", 0)


async def draining(envoy: ManagedEnvoy) -> bool:
    return await envoy.admin.state() == "DRAINING"


async def outcome(http, url: str) -> int:
    """A response's status, 0 for a broken connection, -1 for one refused."""
    try:
        return (await http(url)).status
    except aiohttp.ClientConnectorError:
        return -1
    except aiohttp.ClientError:
        return 0


# Draining.


async def test_stop_under_load_breaks_no_request(port, tmp_path, http):
    """16 connections of requests of half a second: those under way are answered, later ones find no listener."""
    server = await asyncio.start_server(slow_service, HOST, 0, backlog=100)
    upstream = config.static_cluster("slow", config.tcp(HOST, server.sockets[0].getsockname()[1]))
    route = {"match": {"prefix": "/"}, "route": {"cluster": "slow", "timeout": "0s"}}
    envoy = ManagedEnvoy("e", static(http_listener(port, route), clusters=(upstream,)), tmp_path, drain_seconds=30)
    outcomes: list[int] = []

    async def load() -> None:
        while not outcomes or outcomes[-1] != -1:
            outcomes.append(await outcome(http, f"http://{HOST}:{port}/"))

    async with server:
        await envoy.start()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(16):
                tasks.create_task(load())
            await eventually(lambda: len(outcomes) >= 16, what="a round of answers")
            await eventually(lambda: full(envoy, 16), what="all are under way")
            asked = len(outcomes)
            stop = tasks.create_task(envoy.stop())
            await eventually(lambda: draining_or_over(envoy), what="it drains")
            drained = len(outcomes)
            await stop
    assert set(outcomes) == {200, -1}
    assert outcomes[asked:].count(200) >= 16, "those under way"
    assert outcomes[drained:].count(200) <= 32, "and at most one more on each connection"


async def draining_or_over(envoy: ManagedEnvoy) -> bool:
    try:
        return await draining(envoy)
    except UnavailableError:
        return True


async def full(envoy: ManagedEnvoy, count: int) -> bool:
    return await active_requests(envoy) >= count


async def test_an_idle_connection_does_not_hold_up_the_stop(port, tmp_path):
    envoy = ManagedEnvoy("e", hello(port), tmp_path, drain_seconds=3600)
    await envoy.start()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await reader.readuntil(b"hello")
    await asyncio.wait_for(envoy.stop(), 30)
    assert await reader.read() == b""
    writer.close()


# What it says.


async def test_access_log_lines_arrive_while_it_runs(port, tmp_path, http):
    lines: list[bytes] = []
    log = config.json_log(path="%REQ(:PATH)%", status="%RESPONSE_CODE%")
    async with ManagedEnvoy("e", hello(port, access_log=[log]), tmp_path, on_line=lines.append):
        for number in range(50):
            await http(f"http://{HOST}:{port}/{number}")
        await eventually(lambda: len(lines) == 50, what="a line for each request")
        long = "/" + "x" * 50_000
        assert (await http(f"http://{HOST}:{port}{long}")).status == 200
        await eventually(lambda: len(lines) == 51, what="the long line")
    entries = [json.loads(line) for line in lines]
    assert [entry["path"] for entry in entries] == [f"/{number}" for number in range(50)] + [long]
    assert {entry["status"] for entry in entries} == {200}


async def test_lines_of_the_last_moment_are_not_lost(port, tmp_path, http):
    lines: list[bytes] = []
    log = config.json_log(path="%REQ(:PATH)%")
    async with ManagedEnvoy("e", hello(port, access_log=[log]), tmp_path, on_line=lines.append):
        for number in range(20):
            await http(f"http://{HOST}:{port}/{number}")
    assert [json.loads(line)["path"] for line in lines] == [f"/{number}" for number in range(20)]


async def test_its_log_goes_to_ours_without_the_noise(port, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hairpin.envoy"):
        async with ManagedEnvoy("sidecar", hello(port), tmp_path, log_level="info"):
            caplog.clear()
        assert "sidecar: shutting down server instance" in caplog.messages
        assert "ENVOY_SIGTERM" not in caplog.text


async def test_its_log_can_be_had(port, tmp_path):
    lines: list[bytes] = []
    async with ManagedEnvoy("e", hello(port), tmp_path, on_log=lines.append, log_level="info"):
        pass
    assert any(b"[info][main] starting main dispatch loop" in line for line in lines)


# What it refuses.


@pytest.mark.parametrize(
    ("bootstrap", "reason"),
    [
        ({"static_resources": {"clusters": [{"name": "a", "typee": 1}]}}, "no such field: 'typee'"),
        (
            {"static_resources": {"clusters": [{"name": ""}]}},
            "Clusters[0].Name: value length must be at least 1 characters",
        ),
        (
            static({"name": "l", "address": config.tcp(HOST, 70000)}),
            "PortValue: value must be less than or equal to 65535",
        ),
        (
            static(http_listener(1, answer("", prefix="x") | {"match": {"safe_regex": {"regex": "a(["}}})),
            "missing ]: [",
        ),
    ],
    ids=["field", "constraint", "port", "regex"],
)
async def test_a_bad_configuration_is_refused_with_the_reason(bootstrap, reason, ports, tmp_path, caplog):
    for listener in bootstrap["static_resources"].get("listeners", ()):
        address = listener["address"]["socket_address"]
        address["port_value"] = ports() if address["port_value"] == 1 else address["port_value"]
    with pytest.raises(RefusedError) as served:
        await ManagedEnvoy("the agent's Envoy", bootstrap, tmp_path).start()
    assert str(served.value).startswith("the agent's Envoy: Envoy refuses the configuration: ")
    assert reason in served.value.reason
    with pytest.raises(RefusedError) as validated:
        await validate(bootstrap)
    assert reason in validated.value.reason
    assert caplog.messages == [], "it is said once, by the error"
    assert no_envoys()


async def test_a_good_one_is_taken_and_binds_nothing(port):
    with listening(port):
        await validate(hello(port))
    assert no_envoys()


async def test_a_taken_port_is_named_with_its_holder(tmp_path):
    with listening() as port, pytest.raises(HairpinError) as caught:
        await ManagedEnvoy("e", hello(port), tmp_path).start()
    assert f"e: can't listen on {HOST}:{port}: the port is taken by" in str(caught.value)
    assert f"(pid {os.getpid()})" in str(caught.value)


async def test_a_port_of_another_envoy_is_taken_too(port, tmp_path):
    """With SO_REUSEPORT, its default, Envoy itself would share it without a word."""
    async with ManagedEnvoy("one", hello(port), tmp_path / "1") as one:
        with pytest.raises(HairpinError, match=rf"127\.0\.0\.1:{port}: the port is taken by envoy \(pid {one.pid}\)"):
            await ManagedEnvoy("two", hello(port), tmp_path / "2").start()


async def test_a_directory_that_can_not_be_is_an_error_for_the_user(port, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HairpinError, match=r"e: Envoy can't be started: .*Not a directory: .*file"):
        await ManagedEnvoy("e", hello(port), tmp_path / "file" / "e").start()


async def test_a_block_that_can_not_start_raises_the_plain_error(tmp_path):
    with pytest.raises(RefusedError):
        async with ManagedEnvoy("e", {"nonsense": 1}, tmp_path):
            pytest.fail("started")


def waiting(port: int) -> config.Config:
    """A bootstrap whose control plane nobody runs, on a port that is held for it."""
    xds = config.static_cluster("xds", config.tcp(HOST, port), typed_extension_protocol_options=http2())
    service = {"envoy_grpc": {"cluster_name": "xds"}}
    ads = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {"id": "n", "cluster": "c"},
        "dynamic_resources": {"ads_config": ads, "cds_config": source, "lds_config": source},
        **static(clusters=(xds,)),
    }


def http2() -> config.Config:
    options = {"explicit_http_config": {"http2_protocol_options": {}}}
    name = "extensions.upstreams.http.v3.HttpProtocolOptions"
    return {f"envoy.{name}": config.message(name, **options)}


async def test_without_its_control_plane_it_says_so(port, tmp_path):
    envoy = ManagedEnvoy("sidecar", waiting(port), tmp_path, ready_seconds=4)
    with pytest.raises(
        UnavailableError, match=r"sidecar: .*after 4 s \(PRE_INITIALIZING\): its control plane does not"
    ):
        await envoy.start()
    assert no_envoys()


# Its binary.


def test_the_installed_binary_is_found(envoy_binary):
    assert envoy_binary.is_absolute()
    assert envoy_version(envoy_binary) == "1.40.0"


def test_another_binary_can_be_named(monkeypatch, tmp_path, envoy_binary):
    link = tmp_path / "my-envoy"
    link.symlink_to(envoy_binary)
    monkeypatch.setenv("HAIRPIN_ENVOY", str(link))
    assert find_envoy() == link
    monkeypatch.setenv("HAIRPIN_ENVOY", "")
    assert find_envoy() == envoy_binary


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text(""), "is not executable"),
        (lambda path: path.mkdir(), "is no file"),
    ],
)
def test_a_named_binary_that_can_not_run(monkeypatch, tmp_path, make, problem):
    path = tmp_path / "envoy"
    make(path)
    monkeypatch.setenv("HAIRPIN_ENVOY", str(path))
    with pytest.raises(InvalidFieldError, match=f"HAIRPIN_ENVOY: '.*' {problem}; name an Envoy binary, or unset"):
        find_envoy()


def test_what_is_no_envoy_has_no_version(tmp_path):
    with pytest.raises(NotFoundError, match="is no Envoy"):
        envoy_version(Path("/bin/echo"))
    with pytest.raises(NotFoundError, match="can't be run"):
        envoy_version(tmp_path / "none")


async def test_a_binary_that_is_no_envoy_is_an_error_for_the_user(monkeypatch, port, tmp_path):
    monkeypatch.setenv("HAIRPIN_ENVOY", "/bin/false")
    with pytest.raises(HairpinError, match="e: Envoy ended with exit code 1 before it was ready; it said: nothing"):
        await ManagedEnvoy("e", hello(port), tmp_path).start()


# Its admin interface.


async def test_admin_reads_and_acts(port, tmp_path, http):
    async with ManagedEnvoy("e", hello(port), tmp_path) as envoy:
        await http(f"http://{HOST}:{port}/")
        stats = await envoy.admin.stats(r"^http\.http\.downstream_rq_(total|2xx)$")
        assert stats == {"http.http.downstream_rq_2xx": 1, "http.http.downstream_rq_total": 1}
        dump = await envoy.admin.config_dump()
        assert any(part["@type"].endswith("ListenersConfigDump") for part in dump["configs"])
        assert await envoy.admin.post("/healthcheck/fail") == "OK\n"
        assert (await envoy.admin.state(), await envoy.admin.ready()) == ("DRAINING", False)
        with pytest.raises(HairpinError, match="answers GET /nowhere with 404"):
            await envoy.admin.get("/nowhere")
    with pytest.raises(UnavailableError):
        await envoy.admin.get("/stats")


async def test_a_long_directory_has_its_socket_elsewhere(port, tmp_path):
    directory = tmp_path / ("d" * 60) / ("e" * 60)
    async with ManagedEnvoy("e", hello(port), directory) as envoy:
        path = envoy.admin.path
        assert len(str(path)) <= MAX_SOCKET_PATH
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        first = envoy.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: envoy.restarts == 1 and envoy.pid, what="it is restarted")
        await eventually(envoy.admin.ready, what="it is ready")
        last = envoy.admin.path
    assert not path.parent.exists()
    assert not last.parent.exists()
    with pytest.raises(InvalidFieldError, match="too long for a unix socket"):
        AdminClient(directory / "admin.sock")


async def test_an_admin_that_is_silent_is_unavailable(tmp_path):
    server = await asyncio.start_unix_server(silent_service, tmp_path / "s")
    async with server:
        client = AdminClient(tmp_path / "s", seconds=0.05)
        assert not await client.ready()
        with pytest.raises(UnavailableError, match=r"does not answer /stats within 0\.05 s"):
            await client.get("/stats")


def test_uvloop_does_it_too(ports, tmp_path):
    import uvloop

    async def life() -> list[int]:
        exits: list[int] = []
        for leash in LEASHES:
            async with ManagedEnvoy("e", hello(ports()), tmp_path / leash, leash=leash, on_exit=exits.append) as envoy:
                assert envoy.pid is not None
                os.kill(envoy.pid, signal.SIGKILL)
                await eventually(lambda envoy=envoy: envoy.restarts and envoy.pid, what="it is restarted")
                await eventually(envoy.admin.ready, what="it is ready")
            for delay in (0, 0.005, 0.02, 0.05):
                envoy = ManagedEnvoy("e", hello(ports()), tmp_path / leash, leash=leash)
                async with asyncio.TaskGroup() as tasks:
                    task = tasks.create_task(envoy.start())
                    await asyncio.sleep(delay)
                    task.cancel()
                await envoy.stop()
                await eventually(no_envoys, what="no Envoy is left")
        return exits

    results: list[list[int]] = []
    # Not in this thread: it has the tests' own loop.
    thread = threading.Thread(target=lambda: results.append(uvloop.run(life())))
    thread.start()
    thread.join(50)
    assert results == [[-signal.SIGKILL] * len(LEASHES)]
