"""Port-forward through a real API server to a node that streams with Kubernetes' own library."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from datetime import UTC, datetime

import psutil
import pytest
import yaml

from hairpin.errors import HairpinError
from hairpin.kubernetes import portforward
from hairpin.kubernetes.api import connect
from hairpin.kubernetes.portforward import PortForward, Right, forward
from hairpin.model.session import AgentAddress, Session, SessionSpec, SessionStatus
from local_proxy.control_planes import Connection
from local_proxy.kubectl import kubectl_forwards
from tests.support.cluster.processes import words_of
from tests.support.envoy import eventually

NAMESPACE = "forwards"
ECHO = """
import asyncio, os
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def source(reader, writer):
    writer.write(os.environ["NAME"].encode())
    await writer.drain()
    writer.close()
async def endless(reader, writer):
    global sent
    try:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
    except ConnectionError:
        pass
async def count(reader, writer):
    writer.write(str(sent).encode())
    writer.close()
sent = 0
async def main():
    for port, what in ((7000, echo), (7001, source), (7002, endless), (7003, count)):
        await asyncio.start_server(what, "0.0.0.0", port)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def pod(name: str, value: str = "first") -> dict:
    container = {
        "name": "app", "image": "python", "args": ["-c", ECHO], "env": [{"name": "NAME", "value": value}],
        "readinessProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 1},
    }  # fmt: skip
    metadata = {"name": name, "namespace": NAMESPACE}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


@pytest.fixture(scope="module")
async def there(cluster):
    """A pod without a sidecar; alice may forward ports to it, and mallory nothing."""
    await cluster.client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    await cluster.client.wait_for("ServiceAccount", "default", bool, namespace=NAMESPACE)
    await cluster.client.apply(pod("echo"))
    rule = ("--verb=get,create", "--resource=pods,pods/portforward", "--resource-name=echo", "--resource-name=gone")
    await cluster.kubectl("create", "role", "forwards", "-n", NAMESPACE, *rule)
    await cluster.kubectl("create", "rolebinding", "forwards", "-n", NAMESPACE, "--role=forwards", "--user=alice")
    await ready(cluster, "echo")
    yield cluster
    await cluster.client.delete("Namespace", NAMESPACE)


async def ready(cluster, name):
    def is_ready(found):
        return any(
            c["type"] == "Ready" and c["status"] == "True" for c in found.get("status", {}).get("conditions", [])
        )

    await cluster.client.wait_for("Pod", name, is_ready, namespace=NAMESPACE, seconds=60)


@pytest.fixture
async def api(there):
    async with connect(kubeconfig=str(there.kubeconfig("alice"))) as api:
        yield api


async def read_all(address, data=b"", size=-1):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(data)
        return await (reader.readexactly(size) if size >= 0 else reader.read())
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_bytes_arrive_whole_in_both_directions(api):
    data = os.urandom(20_000_000)
    async with forward(api, NAMESPACE, "echo", 7000) as address:
        assert address[0] == "127.0.0.1"
        echoed = await read_all(address, data, len(data))
    assert hashlib.sha256(echoed).digest() == hashlib.sha256(data).digest()


async def test_many_connections_keep_apart(api):
    async with forward(api, NAMESPACE, "echo", 7000) as address:
        words = [f"word {number}".encode() for number in range(50)]
        assert await asyncio.gather(*(read_all(address, word, len(word)) for word in words)) == words


async def test_the_pods_end_of_a_connection_is_its_end_here(api):
    async with forward(api, NAMESPACE, "echo", 7001) as address:
        assert await read_all(address) == b"first"


async def test_whoever_reads_slowly_is_not_read_for(api):
    """What the pod can send into a connection that nobody reads is bounded by buffers, and nothing of it piles up here."""
    async with forward(api, NAMESPACE, "echo", 7002) as address:
        reader, writer = await asyncio.open_connection(*address, limit=1024)
        await reader.readexactly(1)
        before = psutil.Process().memory_info().rss

        async def sent():
            async with forward(api, NAMESPACE, "echo", 7003) as counting:
                return int(await read_all(counting))

        counts = [await sent()]
        while len(counts) < 3 or counts[-1] != counts[-2]:
            assert len(counts) < 40, counts
            await asyncio.sleep(0.5)
            counts.append(await sent())
        assert psutil.Process().memory_info().rss - before < 32_000_000
        writer.close()


async def test_the_end_leaves_no_connection_and_no_task(api):
    before = asyncio.all_tasks()
    async with forward(api, NAMESPACE, "echo", 7000) as address:
        readers = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"x")
            await reader.readexactly(1)
            readers.append((reader, writer))
        assert len(asyncio.all_tasks() - before) > 5
    for reader, writer in readers:
        assert await reader.read() == b""
        writer.close()
    await eventually(lambda: asyncio.all_tasks() <= before, what="the tasks are gone")
    with pytest.raises(OSError):
        await asyncio.open_connection(*address)


async def test_what_the_body_raises_is_its_own(api):
    async def fail():
        async with forward(api, NAMESPACE, "echo", 7000) as address:
            await read_all(address, b"x", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_a_connection_that_is_left_ends_in_the_pod_too(api):
    async with asyncio.TaskGroup() as tasks:
        told = []
        forwarding = PortForward(api, NAMESPACE, "echo", 7000, tasks, on_error=told.append)
        address = await forwarding.listen()
        await read_all(address, b"x", 1)
        await eventually(lambda: forwarding.connections == 0, what="the connection is over")
        forwarding.close()
    assert told == []


@pytest.mark.parametrize(
    ("name", "port", "words"),
    [
        ("echo", 7999, r"port 7999 of pod forwards/echo can't be reached: .*refused"),
        ("gone", 7000, r'there is no pod forwards/gone to connect to: pods "gone" not found'),
        (
            "other",
            7000,
            r"you may not connect to pod forwards/other: .*pods/portforward.*ClusterRole hairpin-developer",
        ),
    ],
)
async def test_why_there_is_no_connection_is_told_once(api, name, port, words):
    told: list[HairpinError] = []
    async with forward(api, NAMESPACE, name, port, on_error=told.append) as address:
        for _ in range(3):
            assert await read_all(address) == b""
        await eventually(lambda: told, what="it is told")
    with pytest.raises(HairpinError, match=words):
        raise told[0]
    assert len(told) == 1


async def test_being_forbidden_is_borne_for_a_while_once_another_pod_was_reached(api, monkeypatch):
    """An API server that has just begun forbids everything, also what is asked for the first time."""
    monkeypatch.setattr(portforward, "_BORNE_SECONDS", 1.0)
    told: list[HairpinError] = []
    right = Right()
    async with asyncio.TaskGroup() as tasks:
        echo, other = (
            PortForward(api, NAMESPACE, name, 7000, tasks, on_error=told.append, right=right)
            for name in ("echo", "other")
        )
        reached, forbidden = await echo.listen(), await other.listen()
        await read_all(reached, b"x", 1)
        assert await read_all(forbidden) == b""
        assert told == []
        await asyncio.sleep(1.0)
        assert await read_all(forbidden) == b""
        assert [str(error).partition(":")[0] for error in told] == ["you may not connect to pod forwards/other"]
        echo.close()
        other.close()


async def test_a_pod_in_the_place_of_another_is_found(there, api):
    async with forward(api, NAMESPACE, "echo", 7001, on_error=lambda _: None) as address:
        assert await read_all(address) == b"first"
        await there.client.delete("Pod", "echo", NAMESPACE)
        await there.client.wait_gone("Pod", "echo", namespace=NAMESPACE)
        await there.client.apply(pod("echo", "second"))
        await ready(there, "echo")
        assert await read_all(address) == b"second"
    await there.client.delete("Pod", "echo", NAMESPACE)
    await there.client.wait_gone("Pod", "echo", namespace=NAMESPACE)
    await there.client.apply(pod("echo"))
    await ready(there, "echo")


async def test_an_api_server_that_is_away_is_told(there, tmp_path):
    document = yaml.safe_load(there.kubeconfig("alice").read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    told = []
    async with connect(kubeconfig=str(tmp_path / "kubeconfig")) as api:
        async with forward(api, NAMESPACE, "echo", 7000, on_error=told.append) as address:
            assert await read_all(address) == b""
            await eventually(lambda: told, what="it is told")
    assert "the API server at https://127.0.0.1:1 can't be reached" in str(told[0])


async def test_kubectl_does_it_too_and_is_started_again(there, monkeypatch):
    kubectl = there.plane.binaries.kubectl
    monkeypatch.setenv("PATH", str(kubectl.parent), prepend=os.pathsep)
    told = []
    flags = Connection(kubeconfig=str(there.kubeconfig("alice")))
    agent = AgentAddress(name="echo", host="", tunnel_port=7000, egress_port=7001)
    status = SessionStatus(agents=(agent,))
    session = Session(
        name="x", namespace=NAMESPACE, owner="alice", created=datetime.now(UTC), spec=SessionSpec(), status=status
    )

    def kubectls():
        return [found for found in psutil.Process().children(recursive=True) if words_of(found)[:1] == [str(kubectl)]]

    async with kubectl_forwards(flags, "test", NAMESPACE, told.append) as forwards:
        (at,) = (await forwards.replicas(session)).agents

        async def answers():
            try:
                return await read_all((at.host, at.egress_port)) == b"first"
            except OSError:
                return False

        await eventually(answers, what="kubectl forwards")
        await eventually(lambda: len(kubectls()) == 2, what="the other one, too")
        before = kubectls()
        for process in before:
            process.kill()
        await eventually(lambda: len(kubectls()) == 2 and kubectls() != before, what="kubectl is started again")
        await eventually(answers, what="kubectl forwards again")
    assert kubectls() == []
