"""Mode mirror: every matched request arrives in copy, and the cluster's answers are what they are without it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import sys

import aiohttp
import psutil
import pytest

from tests.support.mesh import eventually, started_by
from tests.support.protocols import PROTOCOLS
from tests.support.recorder import recorded

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

CLUSTER = "checkout"
OURS = {"x-hairpin-session", "x-hairpin-copy"}
CHANGING = {"x-request-id", "date", "x-envoy-upstream-service-time"}
LARGE = 32 << 20
PATH = "/a%2Fb//d?q=%20+&q=2"


@contextlib.asynccontextmanager
async def mirror(mesh, user="alice", env="alice", *flags, hold=False, target="checkout:http"):
    """`hairpin run --mode mirror` of a recorder, once copies come there."""
    command = [sys.executable, "-m", "tests.support.recorder", *(["--hold"] if hold else [])]
    arguments = ["run", "--mode", "mirror", "--env", env, "--target", target, *flags, "--", *command]
    async with mesh.hairpin(user, *arguments) as run:
        await run.said("takes the requests|gets copies")
        yield run


async def copies(run, count, seconds=30.0):
    """Wait for so many copies, and see that there are no more."""

    async def there():
        return len(recorded(run.output)) >= count

    await eventually(there, f"{count} copies", seconds=seconds)
    await asyncio.sleep(0.2)
    found = recorded(run.output)
    assert len(found) == count
    return found


def without(headers, *names):
    return {name: value for name, value in headers.items() if name.lower() not in CHANGING.union(names)}


async def test_every_matched_request_arrives_in_copy_and_no_other(mesh):
    async with mirror(mesh) as run:
        gate = asyncio.Semaphore(8)

        async def one(number):
            async with gate:
                environment = (None, "alice", "bob", "alice")[number % 4]
                return (await mesh.ask(environment, path=f"/orders?n={number}"))["who"]

        answers = []
        for first in range(0, 200, 100):  # no more copies are under way than may be, however slow the recorder is
            answers += await asyncio.gather(*map(one, range(first, first + 100)))
            found = await copies(run, len(answers) // 2)
        await run.said(r"-> GET checkout/orders\?n=1 418 \d+ ms \(copy\)$")
    assert set(answers) == {CLUSTER}
    assert sorted(copy["path"] for copy in found) == sorted(f"/orders?n={n}" for n in range(200) if n % 2)


METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "REPORT")
BODY = random.Random(7).randbytes(200_000)  # any bytes


async def test_the_application_and_the_caller_see_what_they_see_without_a_session(mesh):
    """And the copy is the application's request, with two headers that say what it is."""

    async def ask(method):
        headers = {"host": "checkout:80", "x-forwarded-for": "192.0.2.7", "cookie": "a=b; c=d", "x-empty": ""}
        body = BODY if method != "GET" else None
        return await mesh.ask("alice", method=method, path=PATH, headers=headers, data=body)

    before = [await ask(method) for method in METHODS]
    async with mirror(mesh) as run:
        during = [await ask(method) for method in METHODS]
        found = await copies(run, len(METHODS))
        found.sort(key=lambda copy: METHODS.index(copy["method"]))  # one may pass another on its way
    after = [await ask(method) for method in METHODS]
    for one, *others in zip(during, before, after, strict=True):
        for other in others:
            assert without(one["response_headers"]) == without(other["response_headers"])
            assert without(one["headers"]) == without(other["headers"])
            assert (one["who"], one["length"], one["sha256"]) == (CLUSTER, other["length"], other["sha256"])
    for method, copy, answer in zip(METHODS, found, during, strict=True):
        assert (copy["method"], copy["path"], copy["version"]) == (method, PATH, "1.1")
        assert copy["sha256"] == hashlib.sha256(BODY if method != "GET" else b"").hexdigest()
        assert copy["headers"].keys() >= OURS
        assert without(copy["headers"], *OURS) == without(answer["headers"])


async def test_sessions_come_and_go_without_a_listeners_change(mesh):
    async def listeners():
        admin = mesh.sidecar_admin("checkout")
        return await admin.stats(r"^listener_manager\.listener_(added|modified|removed)$")

    before = await listeners()
    for _ in range(2):
        async with mirror(mesh) as run:
            await mesh.ask("alice")
            await copies(run, 1)
            table = await mesh.command("bob", "sessions")
            assert any("mirror" in line and "Active" in line for line in table.output)
    assert await listeners() == before
    await mesh.ask("alice")


async def test_who_takes_requests_and_who_gets_copies_are_not_in_each_others_way(mesh):
    async with mirror(mesh) as alice, mesh.laptop("bob", "alice"):
        answers = [await mesh.ask("alice", method=method, data=b"x" * 70_000) for method in ("PUT", "POST", "PATCH")]
        assert [answer["who"] for answer in answers] == ["laptop of bob"] * 3
        found = await copies(alice, 3)
        assert [copy["length"] for copy in found] == [70_000] * 3
        assert (await alice.session()) in {copy["headers"]["x-hairpin-session"] for copy in found}
        assert (await mesh.ask("bob"))["who"] == CLUSTER
    async with mesh.laptop("bob", "alice"), mirror(mesh) as alice:
        assert (await mesh.ask("alice"))["who"] == "laptop of bob"
        await copies(alice, 1)


async def test_copies_of_the_same_requests_are_one_sessions(mesh):
    async with mirror(mesh) as alice:
        run = await mesh.command(
            "bob", "run", "--mode", "mirror", "--env", "alice", "-t", "checkout:http", "--port", "9", "--", "true"
        )
        assert run.process.returncode
        [line] = [line for line in run.errors if "are held already" in line]
        assert "the copies of requests of default/checkout:80" in line
        assert f"by alice in session {await alice.session()}" in line


def stopped(run, *, only_process):
    """Freeze the laptop, or its process alone."""
    chosen = started_by(run.process.pid, "tests.support.recorder" if only_process else "")
    assert chosen
    if not only_process:
        chosen.append(psutil.Process(run.process.pid))
    return chosen


@pytest.mark.parametrize("what", ["process frozen", "laptop frozen", "laptop killed", "process holds"])
async def test_whatever_becomes_of_the_laptop_the_cluster_answers(mesh, what):
    """Small requests and large ones, many at once: none fails, none waits."""
    body = random.Random(1).randbytes(LARGE)  # any bytes

    async def small(number):
        return (await mesh.ask("alice", method="POST", path=f"/{number}", data=b"x" * 3000))["who"]

    async with mirror(mesh, hold=what == "process holds") as run:
        await mesh.ask("alice")
        await copies(run, 1)
        struck = [] if what == "process holds" else stopped(run, only_process=what == "process frozen")
        for process in struck:
            process.send_signal(signal.SIGKILL if what == "laptop killed" else signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):  # with nothing in its way it takes one
                uploads = await asyncio.gather(
                    *(mesh.ask("alice", method="POST", data=io.BytesIO(body)) for _ in range(3))
                )
                answers = await asyncio.gather(*map(small, range(150)))
        finally:
            for process in struck:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
    assert set(answers) == {CLUSTER}
    assert {answer["who"] for answer in uploads} == {CLUSTER}


async def test_a_frozen_agent_holds_nothing_up(mesh):
    """Who stops reading here is not the laptop but the one that takes copies whole."""
    body = bytes(LARGE)
    async with mirror(mesh) as run:
        await mesh.ask("alice")
        await copies(run, 1)
        agents = started_by(os.getpid(), " -m agent ")
        frozen = [p for agent in agents for p in (agent, *agent.children(recursive=True))]
        assert len(frozen) >= 2, "agent and Envoy"
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                # In this order: once so many small ones wait, there are no more copies to stand in the way.
                large = [await mesh.ask("alice", method="POST", data=io.BytesIO(body)) for _ in range(3)]
                small = await asyncio.gather(*(mesh.ask("alice", method="POST", data=b"x") for _ in range(100)))
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)
    assert {answer["who"] for answer in (*small, *large)} == {CLUSTER}
    assert {answer["length"] for answer in large} == {LARGE}


async def test_a_process_that_answers_none_holds_so_many_and_no_more(mesh):
    admin = mesh.sidecar_admin("checkout")

    async def none_under_way():
        found = await admin.stats(r"^cluster\.hairpin\|copies\|80\.upstream_rq_(pending_)?active$")
        return len(found) == 2 and not any(found.values())

    async def left_out():
        """How many copies Envoy itself has refused, whichever of the cluster's bounds did it."""
        return sum((await admin.stats(r"^cluster\.hairpin\|copies\|80\.internal\.upstream_rq_503$")).values())

    await eventually(none_under_way, "copies of earlier tests are over")
    before = await left_out()
    async with mirror(mesh, hold=True) as run:
        for number in range(100):
            assert (await mesh.ask("alice", path=f"/{number}"))["who"] == CLUSTER
        await copies(run, 64)
        assert await left_out() - before == 36


async def test_websockets_are_not_copied(mesh):
    async with mirror(mesh) as run, aiohttp.ClientSession() as client:
        url = f"http://{mesh.mesh.entry.address}/ws"
        async with client.ws_connect(url, headers={"host": "checkout", "x-env": "alice"}) as socket:
            await socket.send_str("hello")
            assert json.loads((await socket.receive()).data)
        await mesh.ask("alice", path="/last")
        assert [copy["path"] for copy in await copies(run, 1)] == ["/last"]


async def test_grpc_is_copied_in_http2_and_answered_by_the_cluster(mesh):
    """All four kinds; one that streams comes when its stream has ended."""
    async with mirror(mesh, target="checkout:grpc") as run:
        for name in ("grpc_unary", "grpc_server_stream", "grpc_client_stream", "grpc_bidi"):
            await PROTOCOLS[name](mesh.entry, "checkout:9090", {"x-env": "alice"}, CLUSTER)
        found = await copies(run, 4)
    assert {copy["version"] for copy in found} == {"2"}
    assert len({copy["path"] for copy in found}) == 4
    for copy in found:
        assert copy["headers"]["content-type"] == "application/grpc"
        assert (copy["headers"]["te"], copy["headers"]["x-hairpin-copy"]) == ("trailers", "HTTP/2")
        assert copy["length"] > 5


@pytest.mark.parametrize("name", ["http1", "upload_chunked", "download", "sse", "websocket", "http2", "http2_upload"])
async def test_whatever_is_copied_is_answered_by_the_cluster(mesh, mirrored, name):
    await PROTOCOLS[name](mesh.entry, "checkout", {"x-env": "alice"}, CLUSTER)


@pytest.fixture(scope="module")
async def mirrored(mesh):
    """A session that gets copies, for tests of what the caller sees."""
    async with mirror(mesh, env="alice") as run:
        yield run
