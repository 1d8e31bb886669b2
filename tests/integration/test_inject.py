"""`--inject-env`: requests of the command's get the environment's header at the laptop's Envoy: real ones, both ways out."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from hairpin.model.environment import Carrier, Environment, RoutingKey
from hairpin.model.mesh import SocketAddress
from tests.integration.test_egress import connect, own_address
from tests.support import h2client, proxy2
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually
from tests.support.protocols import GRPC, PROTOCOLS, http2_json
from tests.support.tunnels import tunnels

pytestmark = pytest.mark.envoy
KINDS = {carrier: RoutingKey(carrier, "x-env" if carrier is Carrier.HEADER else "env") for carrier in Carrier}
ODD = Environment('a"b\\c%d', RoutingKey(Carrier.BAGGAGE, "env"))
"""An environment whose name means something in Lua and in Envoy's format language."""


@pytest.fixture(scope="module")
async def laptops(tmp_path_factory):
    if own_address() == proxy2.LOOPBACK:
        pytest.skip("this machine has no address but loopback, which the egress refuses")
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(tunnels(tmp_path_factory.mktemp("i")))
        app = await stack.enter_async_context(echo_process("inventory"))
        agent = await made.agent(mesh_outbound=SocketAddress(*app.http), services=("inventory",))
        # The echo server has a port of its own for gRPC, and a name leads to one port here.
        calls = await made.agent("agent-1", mesh_outbound=SocketAddress(*app.grpc), services=("inventory",))
        environments = {carrier: Environment("alice", key) for carrier, key in KINDS.items()}
        environments |= {"odd": ODD, "odd-header": Environment(ODD.name), "grpc": environments[Carrier.BAGGAGE]}
        found = {}
        for name, environment in environments.items():
            leads = calls if name == "grpc" else agent
            found[name] = await made.laptop(name, leads, tunnels=False, inject=environment)
        for replica in (agent, calls):
            replica.allow(*environments)

        async def allowed(laptop):
            return (await connect(laptop, "inventory:80"))[0] == 200

        for laptop in found.values():
            await eventually(lambda laptop=laptop: allowed(laptop), what="the agent lets its calls into the mesh")
        yield found


async def by_proxy(laptop, headers):
    return await answered(*await asyncio.open_connection(proxy2.LOOPBACK, laptop.settings.egress_port), headers)


async def by_gateway(laptop, headers):
    return await answered(*await proxy2.dial(laptop.settings.gateway_port, "inventory:80", "inventory"), headers)


async def by_h2c(laptop, headers):
    async with relayed(laptop) as address, h2client.connect(address) as connection:
        return (await http2_json(connection.request("GET", "inventory", "/", headers)))["headers"]


async def answered(reader, writer, headers):
    """The headers that arrived, of a request whose own may be there several times."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET http://inventory/ HTTP/1.1\r\nHost: inventory\r\n{lines}connection: close\r\n\r\n".encode())
    body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")[2]
    writer.close()
    return json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["headers"]


@asynccontextmanager
async def relayed(laptop):
    """An address that leads through the gateway to the mesh: the supervisor's part, a header before the program's own bytes."""

    async def relay(reader, writer):
        far_reader, far_writer = await proxy2.dial(laptop.settings.gateway_port, "inventory:80", "inventory")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)

    async def copy(source, target):
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        finally:
            target.close()

    async with await asyncio.start_server(relay, proxy2.LOOPBACK, 0) as server:
        yield server.sockets[0].getsockname()[:2]


CASES = [
    (Carrier.HEADER, {}, ("x-env", "alice")),
    (Carrier.HEADER, {"x-env": "bob"}, ("x-env", "bob")),
    ("odd-header", {}, ("x-env", ODD.name)),
    (Carrier.BAGGAGE, {}, ("baggage", "env=alice")),
    (Carrier.BAGGAGE, {"baggage": ""}, ("baggage", "env=alice")),
    (Carrier.BAGGAGE, {"baggage": "user=7;p=1, a=b"}, ("baggage", "user=7;p=1, a=b,env=alice")),
    (Carrier.BAGGAGE, {"baggage": "user=7", "Baggage": "a=b"}, ("baggage", "user=7,a=b,env=alice")),
    (Carrier.BAGGAGE, {"baggage": "user=7", "Baggage": "env=bob"}, ("baggage", "user=7, env=bob")),
    (Carrier.BAGGAGE, {"baggage": "user=7, env = bob;p"}, ("baggage", "user=7, env = bob;p")),
    (Carrier.BAGGAGE, {"baggage": "xenv=1,user=env"}, ("baggage", "xenv=1,user=env,env=alice")),
    (Carrier.BAGGAGE, {"baggage": f"a={'b' * 8192}"}, ("baggage", f"a={'b' * 8192}")),
    ("odd", {}, ("baggage", f"env={ODD.name}")),
    (Carrier.TRACESTATE, {}, ("tracestate", "env=alice")),
    (Carrier.TRACESTATE, {"tracestate": "a=1"}, ("tracestate", "env=alice,a=1")),
]


@pytest.mark.parametrize("way", [by_proxy, by_gateway])
@pytest.mark.parametrize(("name", "headers", "expected"), CASES)
async def test_what_lacks_the_environment_gets_it(laptops, way, name, headers, expected):
    assert (await way(laptops[name], headers)).get(expected[0]) == expected[1]


async def test_a_request_by_h2c_gets_it_too(laptops):
    assert (await by_h2c(laptops[Carrier.HEADER], {}))["x-env"] == "alice"
    assert (await by_h2c(laptops[Carrier.BAGGAGE], {"baggage": "user=7"}))["baggage"] == "user=7,env=alice"


@pytest.mark.parametrize("name", list(PROTOCOLS))
async def test_every_protocol_passes_the_gateway(laptops, name):
    """HTTP/1.1, h2c, gRPC with its streams, WebSocket; large bodies."""
    async with relayed(laptops["grpc" if name in GRPC else Carrier.BAGGAGE]) as address:
        await PROTOCOLS[name](address, "inventory", {"x-user": "7"}, "inventory")


@asynccontextmanager
async def answering(answer):
    """A server of the test's own on this machine, where the agent lets connections go; yields its authority."""

    async def answered(reader, writer):
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(answered, own_address(), 0) as server:
        yield "{}:{}".format(*server.sockets[0].getsockname()[:2])


async def test_a_server_that_speaks_first_is_delayed_by_the_inspection_alone(laptops):
    async def greet(reader, writer):
        writer.write(b"220 ready\r\n")
        writer.write(await reader.readline())

    async with answering(greet) as authority:
        start = time.monotonic()
        reader, writer = await proxy2.dial(laptops[Carrier.HEADER].settings.gateway_port, authority)
        assert await asyncio.wait_for(reader.readline(), 20) == b"220 ready\r\n"
        assert time.monotonic() - start > 0.2  # else nothing was inspected
        writer.write(b"\x00\x16 GET / HTTP/1.1\r\n")
        assert await asyncio.wait_for(reader.readline(), 20) == b"\x00\x16 GET / HTTP/1.1\r\n"
        writer.close()


async def test_http_1_1_keeps_its_letters_its_trailers_and_its_continue(laptops):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readuntil(b"\r\n\r\n")
        answer = f"4\r\nDone\r\n0\r\nX-Sum: {len(body)}\r\n\r\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nX-Who: Me\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + answer)
        seen.set_result((head, body))

    seen = asyncio.get_running_loop().create_future()
    async with answering(serve) as authority:
        reader, writer = await proxy2.dial(laptops[Carrier.HEADER].settings.gateway_port, authority)
        head = "POST /a%2Fb//c?d HTTP/1.1\r\nHost: Me\r\nX-Odd-Case: 1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"2\r\nhi\r\n0\r\nX-Mine: 1\r\n\r\n")
        arrived, body = await asyncio.wait_for(seen, 20)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n"), 20)
        answer += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.close()
    assert arrived.startswith(b"POST /a%2Fb//c?d HTTP/1.1\r\nHost: Me\r\n")
    assert b"\r\nX-Odd-Case: 1\r\n" in arrived
    assert b"\r\nx-env: alice\r\n" in arrived.lower()
    assert body.lower().endswith(b"\r\n0\r\nx-mine: 1\r\n\r\n")
    assert b"\r\nX-Who: Me\r\n" in answer
    assert answer.lower().endswith(f"\r\n0\r\nx-sum: {len(body)}\r\n\r\n".encode())


async def test_a_proxy_of_the_clusters_is_asked_to_connect_as_it_is(laptops):
    async def proxy(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        asked.append(await reader.readexactly(5))
        writer.write(b"world")

    asked = []
    async with answering(proxy) as authority:
        reader, writer = await proxy2.dial(laptops[Carrier.HEADER].settings.gateway_port, authority)
        writer.write(b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 20) == b"world"
        writer.close()
    assert asked[0].startswith(b"CONNECT far.example:443 HTTP/1.1\r\n")
    assert b"x-env" not in asked[0].lower()
    assert asked[1] == b"hello"


async def test_a_request_has_its_line_and_its_connection_ends_after_the_programs(laptops):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        ended.set_result(await reader.read())

    laptop, ended = laptops[Carrier.HEADER], asyncio.get_running_loop().create_future()
    async with answering(serve) as authority:
        reader, writer = await proxy2.dial(laptop.settings.gateway_port, authority, "nobody.invalid")
        writer.write(b"GET / HTTP/1.1\r\nHost: me\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"hi"), 20)
        assert not ended.done()
        writer.close()
        assert await asyncio.wait_for(ended, 20) == b""

        async def told():
            return any((line.get("egress"), line.get("status")) == ("me", 200) for line in laptop.lines)

        await eventually(told, what="the request's line")
        assert not [line for line in laptop.lines if line.get("gateway") == authority]


async def test_what_the_agent_refuses_is_answered_503_and_told(laptops):
    laptop = laptops[Carrier.HEADER]
    assert (await proxy2.get(laptop.settings.gateway_port, "169.254.169.254:80")).startswith(b"HTTP/1.1 503 ")

    async def told():
        lines = [line for line in laptop.lines if line.get("gateway") == "169.254.169.254:80"]
        return any("link-local" in json.dumps(line["answer"]) for line in lines)

    await eventually(told, what="the agent's reason")
