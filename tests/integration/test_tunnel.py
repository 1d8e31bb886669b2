"""Requests through the tunnel: who answers, who can't take another's, and what survives it."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import pytest

from local_proxy.bootstrap import write_app
from tests.support.echo_process import EchoProcess, echo_process
from tests.support.envoy import eventually
from tests.support.protocols import GRPC, PROTOCOLS
from tests.support.tunnels import AgentProxy, Laptop, Tunnels, tunnels

ACTIVE = "http.steer.downstream_rq_active"
CONFIGURATION = r"^(listener_manager|cluster_manager)\.(listener|cluster)_(added|modified|removed|in_place_updated)"

pytestmark = pytest.mark.envoy


@dataclass(frozen=True)
class World:
    tunnels: Tunnels
    agent: AgentProxy
    alice: Laptop
    app: EchoProcess
    bob_app: EchoProcess


@pytest.fixture(scope="module")
async def world(tmp_path_factory):
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(tunnels(tmp_path_factory.mktemp("t")))
        agent = await made.agent()
        app = await stack.enter_async_context(echo_process("alice"))
        bob_app = await stack.enter_async_context(echo_process("bob"))
        alice = await made.laptop("alice", agent, app=app.http)
        await made.laptop("alice-grpc", agent, app=app.grpc)
        await made.laptop("bob", agent, app=bob_app.http)
        for session in ("alice", "bob"):
            await eventually(lambda session=session: agent.answers(session), what=f"{session}'s laptop answers")
        await eventually(lambda: "alice-grpc" in agent.reports.tunnels, what="the tunnel for gRPC")
        yield World(made, agent, alice, app, bob_app)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
async def test_every_protocol_reaches_the_laptop_and_comes_back(world, name):
    session = "alice-grpc" if name in GRPC else "alice"
    await PROTOCOLS[name](world.agent.steer, "checkout", {"x-hairpin-session": session}, "alice")


async def test_two_sessions_interleaved_on_shared_connections_never_mix(world):
    wrong: Counter[str] = Counter()
    connector = aiohttp.TCPConnector(limit=8)
    url = "http://{}:{}/".format(*world.agent.steer)
    async with aiohttp.ClientSession(connector=connector) as client:

        async def one(number: int) -> None:
            who = ("alice", "bob")[number % 2]
            async with client.get(url, headers={"x-hairpin-session": who}) as response:
                answer = await response.json()
                if answer["who"] != who:
                    wrong[answer["who"]] += 1

        for start in range(0, 400, 40):
            await asyncio.gather(*(one(number) for number in range(start, start + 40)))
    assert not wrong


async def test_the_header_of_the_agent_replaces_whatever_the_process_says(world):
    response = await world.agent.get("alice")
    assert response.headers.getall("x-hairpin-served") == ["via_upstream"]
    # Not even a process that says otherwise is believed: its header is replaced.
    refused = await world.agent.get("nobody")
    assert refused.status == 503
    assert refused.headers["x-hairpin-served"].startswith("upstream_reset_before_response_started{remote_connection")
    assert refused.body == b""


async def test_a_request_without_a_session_is_refused_without_a_body(world):
    async with aiohttp.ClientSession() as client, client.get("http://{}:{}/".format(*world.agent.steer)) as response:
        assert (response.status, await response.read()) == (503, b"")
        assert response.headers["x-hairpin-served"] == "unclaimed"


async def test_a_session_changes_nothing_in_the_agents_listeners(world):
    before = await world.agent.envoy.admin.stats(CONFIGURATION)
    more = await world.tunnels.laptop("carol", world.agent, app=world.app.http)
    await eventually(lambda: world.agent.answers("carol"), what="carol's laptop answers")
    await more.envoy.stop()
    await eventually(lambda: "carol" not in world.agent.reports.tunnels, what="carol's tunnel is down")
    after = await world.agent.envoy.admin.stats(CONFIGURATION)
    assert after == before
    assert before["listener_manager.listener_modified"] == 0


async def test_a_certificate_takes_no_other_sessions_tunnel(world):
    rejected = "reverse_tunnel.handshake.validation_failed"
    before = (await world.agent.envoy.admin.stats(rejected))[rejected]
    # By the name it is certified for, an impostor could answer nobody's requests but its own.
    impostor = await world.tunnels.laptop("dave", world.agent, app=world.bob_app.http, certificate="mallory")

    async def refused() -> bool:
        return (await world.agent.envoy.admin.stats(rejected))[rejected] > before

    await eventually(refused, what="the handshake as another session is refused")
    await eventually(
        lambda: any(line["event"] == "handshake_failure" for line in impostor.lines), what="its log says so"
    )
    assert (await world.agent.get("dave")).status == 503
    assert "dave" not in world.agent.reports.tunnels
    await impostor.envoy.stop()


async def test_requests_are_logged_with_what_a_user_wants_to_know(world):
    await world.agent.get("alice", "/?logged=1")

    def logged():
        return next((line for line in world.agent.lines if line.get("path") == "/?logged=1"), None)

    line = await eventually(logged, what="the request's line")
    assert line.keys() == {"session", "method", "authority", "path", "status", "durationMs", "served", "copy"}
    assert (line["session"], line["method"], line["status"], line["served"]) == ("alice", "GET", 200, "via_upstream")
    assert line["copy"] is None
    assert isinstance(line["durationMs"], int)


async def test_the_process_may_go_and_come_back_elsewhere(world):
    async with echo_process("first") as first:
        laptop = await world.tunnels.laptop("erin", world.agent, app=first.http)
        await eventually(lambda: world.agent.answers("erin"), what="the first process answers")
    write_app(laptop.settings, None)

    async def refused() -> bool:
        return (await world.agent.get("erin")).status == 503

    await eventually(refused, what="nothing answers")
    assert "erin" in world.agent.reports.tunnels
    async with echo_process("second") as second:
        write_app(laptop.settings, second.http)
        await eventually(lambda: world.agent.answers("erin"), what="the second process answers")
        assert (await world.agent.get("erin")).who == "second"
    await laptop.envoy.stop()


async def test_a_renewed_certificate_serves_the_next_handshake_without_a_restart(world):
    pid = world.alice.envoy.pid
    updated = r"ssl_context_update_by_sds$"
    before = await world.alice.envoy.admin.stats(updated)
    world.tunnels.identity("laptop-alice", dns=("alice",))

    async def taken() -> bool:
        after = await world.alice.envoy.admin.stats(updated)
        return bool(before) and all(after[name] > count for name, count in before.items())

    await eventually(taken, what="the laptop's Envoy reads the new certificate")
    assert await world.agent.answers("alice")
    assert world.alice.envoy.pid == pid


async def test_a_killed_laptop_is_reported_and_comes_back(world):
    for _ in range(3):
        world.agent.lines.clear()
        world.alice.signal(signal.SIGKILL)
        await eventually(lambda: world.agent.saw("alice", "tunnel_closed"), what="tunnel_closed")
        await eventually(lambda: world.agent.answers("alice"), what="alice's laptop answers again")
        await eventually(lambda: "alice" in world.agent.reports.tunnels, what="the tunnel is reported up")


async def test_a_frozen_laptop_refuses_what_is_in_flight_and_is_reported(world):
    await eventually(lambda: world.agent.answers("alice"), what="alice's laptop answers")
    in_flight = asyncio.gather(*(world.agent.get("alice", "/delay?ms=30000") for _ in range(3)))

    async def all_there() -> bool:
        return (await world.agent.envoy.admin.stats(f"^{ACTIVE}$")).get(ACTIVE) == 3

    await eventually(all_there, what="the agent has the requests")
    world.alice.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(25):  # the process would answer after 30
            answers = [*await in_flight, await world.agent.get("alice")]
        assert [answer.status for answer in answers] == [503] * 4
        await eventually(lambda: "alice" not in world.agent.reports.tunnels, what="the tunnel is reported down")
        assert await world.agent.answers("bob")
    finally:
        world.alice.signal(signal.SIGCONT)


async def test_every_replica_has_a_tunnel_and_a_lost_replica_gets_it_back(world):
    first, second = await world.tunnels.agent("replica-0"), await world.tunnels.agent("replica-1")
    await world.tunnels.laptop("frank", first, second, app=world.app.http)
    for agent in (first, second):
        await eventually(
            lambda agent=agent: agent.answers("frank"), what=f"frank answers through {agent.settings.name}"
        )
    for _ in range(3):
        first.signal(signal.SIGKILL)
        assert await second.answers("frank")
        await eventually(lambda: _connected(first, "frank"), what="frank answers through the replica that came back")
    assert await second.answers("frank")


async def _connected(agent: AgentProxy, session: str) -> bool:
    try:
        return await agent.answers(session)
    except aiohttp.ClientError:
        return False


async def test_a_connection_that_comes_as_a_tunnel_goes_is_heard(tmp_path):
    """It gets the number of the tunnel's descriptor, whose events Envoy 1.40 has not yet taken back (decision 30)."""
    async with tunnels(tmp_path) as made, echo_process("alice") as app:
        agent = await made.agent()
        alice = await made.laptop("alice", agent, app=app.http)
        for _ in range(4):  # of these, without the listener's wait, three heard nothing
            await eventually(lambda: agent.answers("alice"), what="alice's laptop answers")
            agent.signal(signal.SIGSTOP)
            await alice.envoy.stop()
            streams = [await asyncio.open_connection(*agent.steer) for _ in range(4)]
            for _, writer in streams:
                writer.write(b"GET / HTTP/1.1\r\nhost: checkout\r\nx-hairpin-session: alice\r\n\r\n")
            await asyncio.sleep(0.1)  # the kernel has all of it, when the agent looks next
            agent.signal(signal.SIGCONT)
            async with asyncio.timeout(20):
                answers = [await reader.readline() for reader, _ in streams]
            assert answers == [b"HTTP/1.1 503 Service Unavailable\r\n"] * 4
            for _, writer in streams:
                writer.close()
            await alice.envoy.start()  # not before: its tunnel might be there again when a request is heard after 0.1 s
