"""Egress rules by session, and what a laptop asks the agent itself: real Envoys, certificates that say who asks."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from agent.judge import Judge
from agent.policies import Policies
from agent.resolve import Answer, ForbiddenHosts
from tests.integration.test_egress import LOOPBACK, connect, own_address
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually, refusing
from tests.support.h2client import H2Connection
from tests.support.tunnels import AgentProxy, Laptop, Tunnels, tunnels

pytestmark = pytest.mark.envoy

ALICE, BOB = "checkout-alice-1.shop", "checkout-bob-2.shop"
ALLOW = {"default": "Allow", "rules": []}


@dataclass(frozen=True)
class World:
    tunnels: Tunnels
    agent: AgentProxy
    alice: Laptop
    bob: Laptop
    port: int

    def say(self, **rules) -> None:
        """The control plane's word, by the sessions' owners."""
        sessions = {{"alice": ALICE, "bob": BOB}[owner]: document for owner, document in rules.items()}
        self.agent.judge.policies.take(json.dumps({"sessions": sessions}).encode())

    @asynccontextmanager
    async def asking(self, laptop: Laptop, path: str, **headers: str):
        """A request to the agent itself, with the laptop's certificate."""
        identity = laptop.settings.identity
        tls = ssl.create_default_context(cafile=str(identity.authority))
        tls.check_hostname = False  # the agent's name is a URI; Envoy, on a laptop, checks it
        tls.load_cert_chain(identity.certificate)
        url = f"https://{LOOPBACK}:{self.agent.settings.egress.port}{path}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as client:
            async with client.get(url, headers={"Host": "hairpin.internal", **headers}) as response:
                yield response

    @asynccontextmanager
    async def listening(self, laptop: Laptop, session: str, **headers: str):
        async with self.asking(laptop, "/requests", **headers) as response:
            assert response.status == 200
            await eventually(lambda: self.agent.watch.listeners(session), what=f"{session} listens")
            yield response


@pytest.fixture(scope="module")
async def world(tmp_path_factory):
    address = own_address()
    if address == LOOPBACK:
        pytest.skip("this machine has no address but loopback, which the egress refuses")

    async def resolve(host: str) -> Answer:
        full = {"db.prod": "db.prod.svc.cluster.local"}.get(host, host)
        return Answer((ipaddress.ip_address("10.96.0.9" if host == "own" else address),), full)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(tunnels(tmp_path_factory.mktemp("p")))
        server = await stack.enter_async_context(await asyncio.start_server(serve, address, 0))
        own = ForbiddenHosts(names=("own",), resolve=resolve)
        agent = await made.agent(
            judge=Judge(resolve=resolve, policies=Policies(patience=0.2), forbidden_hosts=own), name="agent-policy"
        )
        alice, bob = [await made.laptop(name, agent, tunnels=False) for name in (ALICE, BOB)]
        agent.allow(ALICE, BOB)
        built = World(made, agent, alice, bob, server.sockets[0].getsockname()[1])

        async def open_to_both() -> bool:
            return all([(await connect(laptop, "a:1"))[0] != 403 for laptop in (alice, bob)])

        await eventually(open_to_both, what="both sessions may use the egress")
        yield built


async def test_until_the_control_plane_speaks_nothing_is_reached(world):
    judge = Judge(resolve=world.agent.judge.resolve, policies=Policies(patience=0.2))
    silent = await world.tunnels.agent("agent-silent", judge=judge)
    silent.allow(ALICE)
    laptop = await world.tunnels.laptop(ALICE, silent, name="alice-silent", tunnels=False)

    async def answer() -> tuple[int, dict[str, str]] | None:
        found = await connect(laptop, f"a:{world.port}")
        return None if found[0] == 403 else found

    status, headers = await eventually(answer, what="the session may use the egress")
    assert status == 503
    assert "has not said yet" in headers["x-hairpin-refused"]


async def test_each_session_has_its_own_rules(world):
    deny = {"default": "Allow", "rules": [{"number": 4, "action": "Deny", "hosts": ["*.prod.svc.cluster.local"]}]}
    world.say(alice=deny, bob=ALLOW)
    status, headers = await connect(world.alice, f"db.prod:{world.port}")
    assert status == 403
    assert headers["x-hairpin-refused"] == (
        f"db.prod:{world.port} is decided by rule 4 (deny *.prod.svc.cluster.local) of the egress policy"
    )
    assert (await connect(world.alice, f"db.test:{world.port}"))[0] == 200
    assert (await connect(world.bob, f"db.prod:{world.port}"))[0] == 200
    world.say(alice=ALLOW, bob={"default": "Deny"})
    assert (await connect(world.alice, f"db.prod:{world.port}"))[0] == 200
    assert (await connect(world.bob, f"db.prod:{world.port}"))[0] == 403


async def test_a_plain_request_that_is_refused_says_why_and_one_that_failed_stays_a_failure(world):
    rules = [{"action": "Deny", "hosts": ["db.prod"], "reason": "use staging"}, {"action": "Deny", "ports": [81]}]
    world.say(alice={"default": "Allow", "rules": rules})

    async def get(authority: str, path: str = "/"):
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://{authority}{path}", proxy=world.alice.proxy) as response:
                return response.status, response.headers.get("x-hairpin-refused", ""), await response.text()

    for authority in (f"db.prod:{world.port}", "db.prod"):
        status, reason, body = await get(authority)
        assert (status, body) == (403, f"hairpin: refused: {reason}\n")
        assert reason.endswith(": use staging")
    assert (await get("[fd00::1]:81", "/a?b"))[1].startswith("[fd00::1]:81 is decided by a rule")

    def told():
        return [line["refused"] for line in world.alice.lines if line.get("egress") == "db.prod"]

    assert (await eventually(told, what="the line of the request"))[0].endswith(": use staging")
    with refusing(own_address()) as closed:
        assert (await get(f"db.test:{closed}"))[:2] == (503, "")


async def test_ports_are_judged(world):
    only = {"default": "Deny", "rules": [{"number": 1, "action": "Allow", "ports": [world.port]}]}
    world.say(alice=only)
    assert (await connect(world.alice, f"a:{world.port}"))[0] == 200
    assert (await connect(world.alice, f"a:{world.port % 65535 + 1}"))[0] == 403


async def test_no_header_makes_a_laptop_another_session(world):
    """Whatever it says of itself on the CONNECT, its certificate is what counts."""
    world.say(alice=ALLOW, bob={"default": "Deny"})
    reader, writer = await asyncio.open_connection(LOOPBACK, world.bob.settings.egress_port)
    authority = f"a:{world.port}"
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nx-hairpin-session: {ALICE}\r\n\r\n".encode())
    assert b" 403 " in await reader.readline()
    writer.close()
    async with world.asking(world.bob, "/policy", **{"x-hairpin-session": ALICE}) as response:
        assert (await response.json())["session"] == BOB


async def test_the_agents_own_service_is_refused(world):
    world.say(alice=ALLOW)
    status, headers = await connect(world.alice, "own:8080")
    assert status == 403
    assert headers["x-hairpin-refused"] == "own is 10.96.0.9, which is own, which is not for laptops"


async def test_a_laptop_reads_its_rules(world):
    rules = {
        "default": "Deny",
        "rules": [{"number": 2, "action": "Allow", "cidrs": ["10.0.0.0/8"], "ports": ["80-90"]}],
    }
    world.say(alice=rules, bob=ALLOW)
    async with world.asking(world.alice, "/policy") as response:
        assert await response.json() == {"session": ALICE, **rules}
    async with world.asking(world.bob, "/policy") as response:
        assert await response.json() == {"session": BOB, **ALLOW}


async def test_a_laptop_hears_of_its_own_requests_until_its_session_ends(world):
    world.say(alice=ALLOW, bob=ALLOW)
    async with (
        echo_process("app") as app,
        world.listening(world.alice, ALICE) as alice,
        world.listening(world.bob, BOB, **{"x-hairpin-session": ALICE}) as bob,
    ):
        laptop = await world.tunnels.laptop(ALICE, world.agent, app=app.http, name="alice-takes")
        await eventually(lambda: world.agent.answers(ALICE), what="alice's laptop answers")
        await world.agent.get(ALICE, "/?mark")
        while (line := json.loads(await alice.content.readline()))["path"] != "/?mark":
            assert line["session"] == ALICE
        assert (line["session"], line["status"], line["served"]) == (ALICE, 200, "via_upstream")
        world.say(bob=ALLOW)
        await alice.content.read()  # ends
        await world.agent.get(BOB, "/?none")
        assert json.loads(await bob.content.readline())["session"] == BOB
        await laptop.envoy.stop()
    await eventually(lambda: not world.agent.watch.listeners(BOB), what="who went away is forgotten")


async def test_over_http2_as_a_laptops_envoy_asks(world):
    world.say(alice=ALLOW)
    identity = world.alice.settings.identity
    tls = ssl.create_default_context(cafile=str(identity.authority))
    tls.check_hostname = False
    tls.set_alpn_protocols(["h2"])
    tls.load_cert_chain(identity.certificate)
    reader, writer = await asyncio.open_connection(LOOPBACK, world.agent.settings.egress.port, ssl=tls)
    connection = H2Connection(reader, writer)
    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(connection.receive())
        stream = connection.request("GET", "hairpin.internal", "/policy", {})
        assert await stream.response() == 200
        assert json.loads(b"".join([piece async for piece in stream.body()]))["session"] == ALICE
        receiving.cancel()
        writer.close()


async def test_a_session_that_ended_is_told_nothing(world):
    mallory = await world.tunnels.laptop("mallory.shop", world.agent, tunnels=False)
    async with world.asking(mallory, "/policy") as response:
        assert (response.status, await response.read()) == (403, b"")


async def test_the_proxy_of_a_process_does_not_lead_there(world):
    """A process on the laptop can't ask in its session's name: what it sends comes as CONNECT."""
    world.say(alice=ALLOW)
    assert (await connect(world.alice, "hairpin.internal:80"))[0] == 404
