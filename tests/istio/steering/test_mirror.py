"""Mode mirror in a real Istio mesh: every matched request arrives in copy, and the answers are as without a session."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
from signal import SIGCONT, SIGKILL, SIGSTOP

import psutil
import pytest

from tests.support.cluster.images import PYTHON
from tests.support.cluster.processes import words_of
from tests.support.istio_mesh import SHOP
from tests.support.mesh import eventually
from tests.support.recorder import recorded

pytestmark = [pytest.mark.timeout(240)]

CHANGING = {"x-request-id", "date", "x-envoy-upstream-service-time", "traceparent", "tracestate"}
OURS = {"x-hairpin-session", "x-hairpin-copy"}
BODY = bytes(range(256)) * 800


@contextlib.asynccontextmanager
async def mirror(mesh, *flags):
    recorder = [PYTHON, "-m", "tests.support.recorder", *flags]
    arguments = ["run", "--mode", "mirror", "--env", "alice", "-t", "checkout:http", "-n", SHOP, "--", *recorder]
    async with mesh.hairpin("alice", *arguments) as run:
        await run.said("gets copies of the requests")
        # Said when the rule is in the API server; istiod has to bring it to the sidecars of all replicas.
        probes = itertools.count()

        async def everywhere():
            paths = {f"/probe/{next(probes)}" for _ in range(8)}
            for path in paths:
                await mesh.ask("alice", path=path)

            async def arrived():
                return paths <= {copy["path"] for copy in recorded(run.output)}

            await eventually(arrived, "each of them in copy", seconds=1)  # or the next ones
            return True

        await eventually(everywhere, "copies come from every replica")
        yield run


async def copies(run, count):
    async def there():
        return len(copied(run)) >= count

    await eventually(there, f"{count} copies")
    await asyncio.sleep(0.5)
    found = copied(run)
    assert len(found) == count
    return found


def copied(run):
    return [copy for copy in recorded(run.output) if not copy["path"].startswith("/probe/")]


def kept(headers):
    return {name.lower(): value for name, value in headers.items() if name.lower() not in CHANGING | OURS}


async def test_every_matched_request_arrives_in_copy_and_the_cluster_answers(mesh):
    async def ask(environment, number):
        return await mesh.ask(environment, method="POST", path=f"/orders?n={number}", body=BODY)

    before = await ask("alice", 0)
    async with mirror(mesh) as run:
        during = [await ask(("alice", "bob", None)[number % 3], number) for number in range(90)]
        found = await copies(run, 30)
        await run.said(r"-> POST checkout\S*/orders\?n=87 418 \d+ ms \(copy\)$")
    assert {answer["who"] for answer in during} == {before["who"]}
    assert sorted(copy["path"] for copy in found) == sorted(f"/orders?n={n}" for n in range(0, 90, 3))
    assert {copy["sha256"] for copy in found} == {hashlib.sha256(BODY).hexdigest()}
    assert kept(during[0]["response_headers"]) == kept(before["response_headers"])
    assert kept(during[0]["headers"]) == kept(before["headers"])
    [first] = [copy for copy in found if copy["path"] == "/orders?n=0"]
    assert first["headers"].keys() >= OURS
    assert kept(first["headers"]) == kept(during[0]["headers"])


async def test_the_clusters_answers_are_byte_for_byte_what_they_are_without_a_session(mesh):
    """Also a long one, and an error."""
    address = (await mesh.cluster.client.get("Service", "checkout", SHOP))["spec"]["clusterIP"]

    async def answers():
        found = []
        async with (await mesh.caller()).session() as session:
            for path in ("/download?bytes=3000000&seed=7", "/download?bytes=0", "/status?code=500"):
                async with session.get(
                    f"http://{address}{path}", headers={"host": "checkout", "x-env": "alice"}
                ) as one:
                    found.append((one.status, one.reason, kept(one.headers), await one.read()))
        return found

    before = await answers()
    async with mirror(mesh) as run:
        assert await answers() == before
        await copies(run, 3)
    assert [status for status, *_ in before] == [200, 200, 500]


def struck(run, what):
    """The processes that a case stops or kills: the laptop's, or the one that gets the copies."""
    laptop = psutil.Process(run.pid)
    tree = [laptop, *laptop.children(recursive=True)]
    if what == "process":
        return [found for found in tree if "tests.support.recorder" in words_of(found)[:3]]  # hairpin's own has it too
    return tree if what == "laptop" else []


@pytest.mark.parametrize(
    ("what", "number", "flags"),
    [
        pytest.param("laptop", SIGSTOP, (), id="laptop frozen"),
        pytest.param("laptop", SIGKILL, (), id="laptop killed"),
        pytest.param("process", SIGSTOP, (), id="process frozen"),
        pytest.param("", SIGCONT, ("--hold",), id="process at a breakpoint"),
    ],
)
async def test_whatever_becomes_of_the_laptop_the_cluster_answers_at_once(mesh, what, number, flags):
    """Small requests and large ones, which would fill what is between."""
    large = BODY * 40
    async with mirror(mesh, *flags) as run:
        await mesh.ask("alice")
        await copies(run, 1)
        processes = struck(run, what)
        assert bool(processes) == bool(what)
        try:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):  # what hairpin had on a leash ends with it
                    process.send_signal(number)
            async with asyncio.timeout(60), (await mesh.caller()).session() as session:

                async def posted(body):
                    async with session.post("http://checkout/", headers={"x-env": "alice"}, data=body) as response:
                        return (await response.json())["who"]

                small = await asyncio.gather(*(posted(b"x") for _ in range(100)))
                big = [await posted(io.BytesIO(large)) for _ in range(3)]
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(SIGCONT)
    assert {*small, *big} == {"checkout"}
