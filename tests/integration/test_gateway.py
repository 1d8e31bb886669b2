"""Connections that leave by the gateway, and what the agent says of names and destinations: real Envoys, real judge."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import socket
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from agent.judge import Judge
from agent.resolve import Answer, system_resolve
from hairpin.errors import UnavailableError
from hairpin.model.mesh import SocketAddress
from local_proxy.intercept import answers as intercepted
from local_proxy.laptop import connection_seen
from local_proxy.questions import Questions, Verdict
from tests.integration.test_egress import forward_to, own_address
from tests.support import proxy2
from tests.support.echo_process import EchoProcess, echo_process
from tests.support.envoy import eventually, refusing
from tests.support.tunnels import AgentProxy, Laptop, tunnels

pytestmark = pytest.mark.envoy
ALLOW_BY_NAME = {
    "sessions": {
        "alice": {
            "default": "Allow",
            "rules": [{"action": "Deny", "hosts": ["denied.test"], "reason": "use the other"}],
        },
        "dave": {
            "default": "Allow",
            "rules": [{"action": "Deny", "hosts": ["denied.test"], "reason": "use the other"}],
        },
        "carol": {"default": "Deny", "rules": [{"action": "Allow", "hosts": ["app.test", "elsewhere.test"]}]},
    }
}


class Names:
    """A name server's answers, in the place of the system's."""

    def __init__(self, address: str) -> None:
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, list[str]] = {
            "app.test": ["192.0.2.1", address],
            "denied.test": [address],
            "other.test": [address],
            "bad.test": [address, "127.0.0.1"],
        }

    async def resolve(self, host: str):
        match host:
            case "gone.test":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            case "empty.test":
                raise socket.gaierror(socket.EAI_NODATA, "No address associated with hostname")
            case "later.test":
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            case _ if host in self.answers:
                self.asked[host] += 1
                addresses = tuple(ipaddress.ip_address(address) for address in self.answers[host])
                return Answer(addresses, f"{host}.full")
            case _:
                return await system_resolve(host)


class Answered:
    """A laptop whose connects are exact, and what its Envoy says of them."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop
        self.heard: list[intercepted.Answer] = []

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = intercepted.AnswerReader()
        while data := await reader.read(65536):
            self.heard += answers.feed(data)
        writer.close()

    @contextlib.asynccontextmanager
    async def dialled(self, authority: str, name: str = ""):
        """A connection through the gateway, and the first that was said of it."""
        reader, writer = await proxy2.dial(self.laptop.settings.gateway_port, authority, name)
        source = "{}:{}".format(*writer.get_extra_info("sockname"))

        def said():
            return next((answer for answer in self.heard if answer.source == source), None)

        try:
            yield await eventually(said, what=f"an answer for {authority}"), reader, writer
        finally:
            writer.close()


@dataclass(frozen=True)
class World:
    agent: AgentProxy
    silent: AgentProxy
    alice: Laptop
    carol: Laptop
    exact: Answered
    app: EchoProcess
    outside: tuple[str, int]
    questions: Questions
    names: Names

    @property
    def gateway(self) -> int:
        return self.alice.settings.gateway_port

    @property
    def authority(self) -> str:
        return "{}:{}".format(*self.outside)

    async def line(self, authority: str, name: str = ""):
        def found():
            lines = (connection_seen(line) for line in self.alice.lines if "gateway" in line)
            return next((seen for seen in lines if (seen.authority, seen.name) == (authority, name)), None)

        return await eventually(found, what=f"the line of {authority}")


@pytest.fixture(scope="module")
async def world(tmp_path_factory):
    address = own_address()
    if address == proxy2.LOOPBACK:
        pytest.skip("this machine has no address but loopback, which the egress refuses")
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(tunnels(tmp_path_factory.mktemp("g")))
        app = await stack.enter_async_context(echo_process("inventory"))

        outside = await stack.enter_async_context(await asyncio.start_server(forward_to(app.http), address, 0))
        names = Names(address)
        judge = Judge(resolve=names.resolve, timeout=2.0)
        judge.policies.take(json.dumps(ALLOW_BY_NAME).encode())
        mesh = {"mesh_outbound": SocketAddress(*app.http), "services": ("inventory",)}
        agent = await made.agent(judge=judge, **mesh)
        silent = await made.agent("agent-1")
        await silent.envoy.stop()
        alice = await made.laptop("alice", agent, silent, tunnels=False)
        carol = await made.laptop("carol", agent, tunnels=False)
        socket_path = tmp_path_factory.mktemp("a") / "a.sock"
        exact = Answered(await made.laptop("dave", silent, agent, tunnels=False, answers=socket_path))
        await stack.enter_async_context(await asyncio.start_unix_server(exact.hear, socket_path))
        agent.allow("alice", "carol", "dave")
        asking = Questions.opened(lambda: alice.settings.questions, lambda: [a.name for a in alice.settings.agents])
        questions = await stack.enter_async_context(asking)
        built = World(agent, silent, alice, carol, exact, app, outside.sockets[0].getsockname(), questions, names)

        async def allowed(laptop):
            return b" 200 " in await proxy2.get(laptop.settings.gateway_port, "inventory:80")

        for laptop in (alice, carol, exact.laptop):
            await eventually(lambda laptop=laptop: allowed(laptop), what="the gateway leads to the mesh")
        yield built


async def test_a_connection_to_a_name_of_the_mesh_arrives_and_is_told_at_its_end(world):
    answer = await proxy2.get(world.gateway, "inventory:80", "inventory", path="/gateway")
    assert b'"who"' in answer and b"inventory" in answer
    seen = await world.line("inventory:80", "inventory")
    assert (seen.refused, seen.received) == ("", len(answer))
    assert seen.sent > 40


async def test_any_bytes_go_both_ways_and_one_side_may_end_first(world):
    async def count(reader, writer):
        writer.write(b"greeting")  # a server may speak first, as MySQL's and SMTP's do
        writer.write(b"%d" % len(await reader.read()))
        writer.close()

    async with await asyncio.start_server(count, world.outside[0], 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await proxy2.dial(world.gateway, f"{world.outside[0]}:{port}")
        assert await asyncio.wait_for(reader.readexactly(8), 20) == b"greeting"
        writer.write(bytes(range(256)) * 1000)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b"256000"
        writer.close()


@pytest.mark.parametrize("destination", [("10.96.0.1", 80), ("fd00::1", 80)])
async def test_the_header_may_be_of_either_family(world, destination):
    reader, writer = await proxy2.dial(world.gateway, world.authority, "", destination)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b" 200 " in await asyncio.wait_for(reader.readline(), 20)
    writer.close()


async def test_rules_by_host_hold_for_the_name_that_was_looked_up(world):
    assert await proxy2.get(world.gateway, world.authority, "denied.test") == b""
    seen = await world.line(world.authority, "denied.test")
    assert seen.refused.endswith(" is decided by a rule (Deny denied.test) of the egress policy: use the other")
    assert world.names.asked["denied.test"] == 1  # a refusal is no failure: it is not tried at another replica
    assert b" 200 " in await proxy2.get(world.gateway, world.authority, "other.test")


async def test_a_name_gives_its_rights_to_its_addresses_alone(world):
    gateway = world.carol.settings.gateway_port
    assert b" 200 " in await proxy2.get(gateway, world.authority, "app.test")
    assert await proxy2.get(gateway, world.authority) == b""
    assert await proxy2.get(gateway, world.authority, "other.test") == b""
    assert await proxy2.get(gateway, world.authority, "gone.test") == b""


async def test_an_address_that_the_name_left_is_not_connected_to(world):
    """The name's first address is, whoever has the old one now."""
    _, port = world.outside
    assert b" 200 " in await proxy2.get(world.gateway, f"192.0.2.77:{port}", "other.test")
    _, answer = await world.agent.names.destination(f"192.0.2.1:{port}", "alice", "app.test")
    assert answer == {"address": f"192.0.2.1:{port}"}


@pytest.mark.parametrize(
    ("authority", "name", "reason"),
    [
        ("127.0.0.1:80", "", "127.0.0.1 is the agent's own loopback"),
        ("169.254.169.254:80", "", "link-local"),
        ("[::1]:80", "", "loopback"),
        ("192.0.2.1:80", "bad.test", "bad.test is 127.0.0.1, which is the agent's own loopback"),
        ("127.0.0.1:80", "localhost", "loopback"),
    ],
)  # fmt: skip
async def test_what_nobody_reaches_is_not_reached_this_way_and_the_reason_is_told(world, authority, name, reason):
    assert await proxy2.get(world.gateway, authority, name) == b""
    assert reason in (await world.line(authority, name)).refused


async def test_a_port_that_nobody_listens_on_ends_the_connection_and_says_so(world):
    with refusing(world.outside[0]) as closed:
        authority = f"{world.outside[0]}:{closed}"
        assert await proxy2.get(world.gateway, authority) == b""
    assert (await world.line(authority)).refused == "the agent could not connect (503)"


async def test_a_connect_is_answered_when_the_destination_is_connected_before_a_byte_is_sent(world):
    async with world.exact.dialled(world.authority, "other.test") as (answer, reader, writer):
        assert answer.connected
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 20)


async def test_a_connect_that_fails_is_answered_with_why(world):
    with refusing(world.outside[0]) as closed:
        for authority, name, error, words in (
            (world.authority, "denied.test", errno.ECONNREFUSED, "use the other"),
            ("gone.test:80", "", errno.EHOSTUNREACH, "gone.test does not resolve"),
            (f"{world.outside[0]}:{closed}", "", errno.ECONNREFUSED, "nothing listens there"),
            ("[::1]:80", "", errno.ECONNREFUSED, "loopback"),
        ):
            async with world.exact.dialled(authority, name) as (answer, reader, _):
                assert not answer.connected
                number, why = intercepted.problem(answer)
                assert (errno.errorcode[number], words in why) == (errno.errorcode[error], True), answer
                assert await asyncio.wait_for(reader.read(), 20) == b""


async def test_the_line_of_a_connection_is_told_at_its_end_alone(world):
    async with world.exact.dialled(world.authority, "app.test"):
        await asyncio.sleep(0.2)  # more than Envoy keeps a line
        assert not any(line.get("name") == "app.test" for line in world.exact.laptop.lines)
    await eventually(
        lambda: any(line.get("name") == "app.test" for line in world.exact.laptop.lines), what="the line at its end"
    )


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\nhost: inventory\r\n\r\n", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"]
)
async def test_who_names_no_destination_gets_none(world, first):
    reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway)
    writer.write(first)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    reader, writer = await proxy2.dial(world.gateway, "")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()


async def test_a_name_is_answered_as_the_pod_sees_it(world):
    found = await world.questions.name("App.test")
    assert (found.exists, found.virtual) == (False, False) or found.addresses
    found = await world.questions.name("app.test")
    assert [str(address) for address in found.addresses] == ["192.0.2.1", world.outside[0]]
    assert (found.exists, found.virtual, found.name) == (True, False, "app.test.full")


@pytest.mark.parametrize(
    "name", ["inventory", "INVENTORY.", "inventory.default", "inventory.default.svc.cluster.local"]
)
async def test_names_of_a_mesh_on_one_machine_are_virtual(world, name):
    found = await world.questions.name(name)
    assert (found.addresses, found.virtual, found.exists) == ((), True, True)
    assert await world.questions.destination(f"{name.rstrip('.')}:80") == Verdict(allowed=True, virtual=True)


async def test_no_such_name_and_no_answer_are_told_apart(world):
    found = await world.questions.name("gone.test")
    assert (found.exists, found.reason) == (False, "there is no gone.test")
    found = await world.questions.name("empty.test")
    assert (found.exists, found.addresses) == (True, ())
    with pytest.raises(UnavailableError, match=r"later.test can't be looked up: .*Temporary failure"):
        await world.questions.name("later.test")
    assert not (await world.questions.name("a" * 64 + ".test")).exists


async def test_a_destination_is_answered_as_the_judge_would(world):
    ask = world.questions.destination
    assert await ask(world.authority, "other.test") == Verdict(allowed=True, address=world.authority)
    assert (await ask(world.authority, "denied.test")).reason.endswith("use the other")
    assert "loopback" in (await ask("[::1]:80")).reason
    assert (await ask("gone.test:80")).reason.startswith("gone.test does not resolve")
    assert not (await ask("a b:80")).allowed


async def test_without_a_replica_nothing_can_be_said(world):
    async with Questions.opened(
        lambda: world.alice.settings.questions, lambda: [world.silent.settings.name]
    ) as questions:
        with pytest.raises(UnavailableError, match="the agent can't be asked: agent-1 answers 503"):
            await questions.name("app.test")
    async with Questions.opened(lambda: world.alice.settings.questions, list) as questions:
        with pytest.raises(UnavailableError, match="no agent now"):
            await questions.name("app.test")
