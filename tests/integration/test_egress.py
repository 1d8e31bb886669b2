"""Connections out through the agent: who may, where to, and what nobody reaches."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import pytest

from agent.judge import Judge
from agent.resolve import Answer, system_resolve
from hairpin.model.mesh import SocketAddress
from tests.support.echo_process import EchoProcess, echo_process
from tests.support.envoy import eventually
from tests.support.protocols import PROTOCOLS
from tests.support.tunnels import AgentProxy, Laptop, Tunnels, tunnels

pytestmark = pytest.mark.envoy

PLAIN = sorted(
    name for name in PROTOCOLS if name in ("http1", "websocket", "sse", "upload", "upload_chunked", "download")
)
LOOPBACK = "127.0.0.1"


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return LOOPBACK


class Names:
    """A name server's answers, in the place of the system's: some of them lie."""

    def __init__(self, outside: str) -> None:
        self._asked: Counter[str] = Counter()
        self._answers: dict[str, list[list[str]]] = {
            "outside.test": [[outside]],
            "loopback.test": [[LOOPBACK]],
            "metadata.test": [["169.254.169.254"]],
            "second.test": [[outside, LOOPBACK]],
            "sixth.test": [[outside, "::1"]],
            "mapped.test": [["::ffff:127.0.0.1"]],
            "rebinding.test": [[outside], [LOOPBACK]],
            "nowhere.test": [[]],
        }

    async def resolve(self, host: str):
        if host not in self._answers:
            return await system_resolve(host)
        answers = self._answers[host]
        answer = answers[min(self._asked[host], len(answers) - 1)]
        self._asked[host] += 1
        return Answer(tuple(ipaddress.ip_address(address) for address in answer))


@dataclass(frozen=True)
class World:
    tunnels: Tunnels
    agent: AgentProxy
    alice: Laptop
    bob: Laptop
    app: EchoProcess
    outside: tuple[str, int]


@pytest.fixture(scope="module")
async def world(tmp_path_factory):
    address = own_address()
    if address == LOOPBACK:
        pytest.skip("this machine has no address but loopback, which the egress refuses")
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(tunnels(tmp_path_factory.mktemp("e")))
        app = await stack.enter_async_context(echo_process("inventory"))
        outside = await asyncio.start_server(forward_to(app.http), address, 0)
        await stack.enter_async_context(outside)
        judge = Judge(resolve=Names(address).resolve)
        mesh = {"mesh_outbound": SocketAddress(*app.http), "services": ("inventory",)}
        agent = await made.agent(judge=judge, **mesh)
        laptops = [await made.laptop(name, agent, tunnels=False) for name in ("alice", "bob")]
        agent.allow("alice")
        port = outside.sockets[0].getsockname()[1]
        built = World(made, agent, *laptops, app, (address, port))
        await eventually(lambda: _allowed(built.alice), what="alice may use the egress")
        yield built


def forward_to(target: tuple[str, int]):
    """The echo server under an address that is not loopback."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(*target)
        try:
            await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        except ConnectionError:
            writer.close()

    return serve


async def connect(laptop: Laptop, authority: str) -> tuple[int, dict[str, str]]:
    """The answer to a CONNECT, and its headers; the connection is closed."""
    reader, writer = await asyncio.open_connection(LOOPBACK, laptop.settings.egress_port)
    try:
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), headers
    finally:
        writer.close()


async def _allowed(laptop: Laptop) -> bool:
    return (await connect(laptop, "inventory:80"))[0] == 200


async def test_a_session_without_a_policy_is_refused(world):
    status, headers = await connect(world.bob, "inventory:80")
    assert status == 403
    assert headers.get("content-length", "0") == "0"


async def test_an_ended_sessions_certificate_is_refused_and_no_other(world):
    world.agent.allow("alice", "bob")
    await eventually(lambda: _allowed(world.bob), what="bob may")
    world.agent.allow("alice")

    async def refused() -> bool:
        return not await _allowed(world.bob)

    await eventually(refused, what="bob may no longer")
    assert await _allowed(world.alice)


async def test_an_impostor_under_anothers_name_gets_what_its_certificate_gets(world):
    impostor = await world.tunnels.laptop("alice", world.agent, certificate="mallory", name="impostor", tunnels=False)
    assert (await connect(impostor, "inventory:80"))[0] == 403
    await impostor.envoy.stop()


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_requests_through_the_proxy_reach_the_mesh(world, name):
    """In absolute form, as programs with `http_proxy` send them; a WebSocket is an upgrade of such a request."""
    proxy = (LOOPBACK, world.alice.settings.egress_port)
    await PROTOCOLS[name](proxy, "inventory", {}, "inventory")


@pytest.mark.parametrize(
    "authority", ["inventory", "inventory:8080", "INVENTORY.default", "x.default.svc.cluster.local"]
)
async def test_names_of_the_mesh_go_to_the_sidecar(world, authority):
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://{authority}/", proxy=world.alice.proxy) as response,
    ):
        assert (response.status, (await response.json())["who"]) == (200, "inventory")


async def test_an_address_that_is_not_forbidden_is_reached_by_name_and_by_literal(world):
    host, port = world.outside
    for authority in (f"{host}:{port}", f"outside.test:{port}"):
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{authority}/", proxy=world.alice.proxy) as response,
        ):
            assert (await response.json())["who"] == "inventory"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "localhost",
        "LOCALHOST", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]", "169.254.169.254", "169.254.0.1", "2852039166", "[fe80::1]", "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]", "224.0.0.1", "[ff02::1]", "255.255.255.255", "240.0.0.1",
        "loopback.test", "metadata.test", "second.test", "sixth.test", "mapped.test",
    ],
)  # fmt: skip
async def test_forbidden_addresses_are_refused_in_every_notation_and_by_every_name(world, host):
    status, headers = await connect(world.alice, f"{host}:{world.app.http[1]}")
    assert status == 403
    assert headers["x-hairpin-refused"]


@pytest.mark.parametrize(
    ("authority", "status"),
    [("127.0.0.1.:80", (403, 502)), ("[fe80::1%25lo]:80", (400, 403)), ("nowhere.test:80", (502,)), ("a b:80", (400,)),
     ("host:0", (400,)), ("host:65536", (400,)), ("user@127.0.0.1:80", (400, 403)), ("127.0.0.1:80:80", (400,))],
)  # fmt: skip
async def test_what_is_no_host_and_port_gets_nowhere(world, authority, status):
    assert (await connect(world.alice, authority))[0] in status


async def test_an_answer_that_changes_after_the_check_changes_nothing(world):
    """DNS rebinding: the look-up that was judged is the only one."""
    authority = f"rebinding.test:{world.outside[1]}"
    assert (await connect(world.alice, authority))[0] == 200
    assert (await connect(world.alice, authority))[0] == 403


async def test_a_laptop_can_not_name_the_address_itself(world):
    """Whatever header it sends on the CONNECT, the judge's answer is what counts."""
    reader, writer = await asyncio.open_connection(LOOPBACK, world.alice.settings.egress_port)
    address = f"{LOOPBACK}:{world.app.http[1]}"
    writer.write(
        f"CONNECT nowhere.test:80 HTTP/1.1\r\nHost: nowhere.test:80\r\nx-hairpin-address: {address}\r\n\r\n".encode()
    )
    assert b" 502 " in await reader.readline()
    writer.close()


async def test_without_a_judge_nothing_but_the_mesh_is_reached(world, tmp_path):
    agent = await world.tunnels.agent(
        "without-judge", mesh_outbound=SocketAddress(*world.app.http), services=("inventory",)
    )
    agent.settings.judge_socket.unlink()
    agent.allow("alice")
    laptop = await world.tunnels.laptop("alice", agent, name="laptop-without-judge", tunnels=False)
    await eventually(lambda: _allowed(laptop), what="the mesh is reached")
    assert (await connect(laptop, "{}:{}".format(*world.outside)))[0] == 503


async def test_requests_out_are_logged(world):
    async with (
        aiohttp.ClientSession() as client,
        client.get("http://inventory/?log", proxy=world.alice.proxy) as answer,
    ):
        await answer.read()

    def logged():
        return next((line for line in world.alice.lines if line.get("method") == "GET"), None)

    line = await eventually(logged, what="the line of a plain request")
    assert (line["egress"], line["status"]) == ("inventory", 200)
    await connect(world.alice, "127.0.0.1:1")

    def refused():
        return next((line for line in world.alice.lines if line.get("egress") == "127.0.0.1:1"), None)

    line = await eventually(refused, what="the line of a refused CONNECT")
    assert (line["method"], line["status"]) == ("CONNECT", 403)
    assert "loopback" in line["refused"]
