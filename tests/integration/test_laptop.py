"""The laptop's end of one session, with real Envoys: ids as Kubernetes has them, replicas that come and go, request lines."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from hairpin.certificates import new_key_and_request
from hairpin.model.session import EgressAddress, Session, SessionSpec, SessionStatus
from local_proxy.held import Held
from local_proxy.laptop import Laptop
from local_proxy.reach import Direct, Replicas
from local_proxy.requests import NoRequestLinesError, tell_requests
from local_proxy.tunnels import keep_tunnels
from tests.support.envoy import eventually
from tests.support.ports import free_port
from tests.support.tunnels import AGENT_ID, tunnels

pytestmark = pytest.mark.envoy
ID = "checkout-alice-x7k2p.shop"
AS_TARGET = "spiffe://hairpin.local/ns/shop/sa/checkout"


@pytest.fixture
async def parts(tmp_path):
    async with tunnels(tmp_path) as parts:
        yield parts


@pytest.fixture
async def app():
    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


def session(parts, *agents, egress=()):
    key, request = new_key_and_request()
    chain = parts.authority.sign(request, dns=(ID,), lifetime=timedelta(hours=1)).chain
    status = SessionStatus(
        id=ID, certificate=chain, certificate_authority=parts.authority.certificate, agent_identity=AGENT_ID,
        agents=tuple(agent.address for agent in agents), egress=egress, egress_identity=AS_TARGET if egress else "",
    )  # fmt: skip
    name, _, namespace = ID.partition(".")
    return key, Session(
        name=name, namespace=namespace, owner="alice", created=datetime.now(UTC), spec=SessionSpec(), status=status
    )


class Running:
    def __init__(self, held, laptop, port):
        self.held, self.laptop, self.port = held, laptop, port

    async def change(self, **status):
        session = self.held.session
        self.held.put(dataclasses.replace(session, status=dataclasses.replace(session.status, **status)))
        await self.held.notify()

    async def tunnels(self, *agents):
        """Stands in for the control plane: says which tunnels are up."""
        for agent in agents:
            await eventually(lambda a=agent: a.reports.tunnels == {ID}, what=f"the tunnel to {agent.settings.name}")
        await self.change(tunnels=tuple(agent.settings.name for agent in agents))


@contextlib.asynccontextmanager
async def running(parts, directory, app, *agents, egress=()):
    """A laptop whose tunnels are kept."""
    key, claimed = session(parts, *agents, egress=egress)
    held, directory, port = Held(), directory / "laptop", free_port()
    directory.mkdir()
    held.put(claimed)
    held.watching = True
    replicas = Replicas(claimed.status.agents, claimed.status.egress)
    laptop = Laptop(
        claimed, replicas, key, directory, egress_port=port, app=tuple(app),
        on_egress=lambda _: None, on_problem=lambda *_: None,
    )  # fmt: skip
    async with laptop.envoy, asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(keep_tunnels(held, laptop, Direct()))
        yield Running(held, laptop, port)
        keeping.cancel()


async def test_an_id_of_two_labels_is_the_tunnels_and_the_certificates(parts, tmp_path, app):
    agent = await parts.agent("agent-0")
    async with running(parts, tmp_path, app, agent) as run:
        await run.tunnels(agent)
        assert (await agent.get(ID)).body == b"ok"


async def test_a_replica_that_comes_later_gets_a_tunnel_and_one_that_goes_is_let_go(parts, tmp_path, app):
    first, second = await parts.agent("agent-0"), await parts.agent("agent-1")
    async with running(parts, tmp_path, app, first) as run:
        await run.tunnels(first)
        await run.change(agents=(first.address, second.address))
        await run.tunnels(first, second)
        assert (await second.get(ID)).body == b"ok"
        await run.change(agents=(second.address,), tunnels=("agent-1",))

        def dialled():
            resources = json.loads((tmp_path / "laptop" / "tunnels.json").read_text())["resources"]
            return [resource["name"].split("/")[1] for resource in resources]

        # Envoy lets the first one's tunnel drain.
        await eventually(lambda: dialled() == ["agent-1"], what="the first one is dialled no more")
        assert (await second.get(ID)).body == b"ok"


async def test_requests_are_told_by_each_replica(parts, tmp_path, app):
    agents = [await parts.agent("agent-0"), await parts.agent("agent-1")]
    seen = []
    async with running(parts, tmp_path, app, *agents) as run:
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell_requests(run.held, run.laptop.questions, seen.append))
            for agent in agents:
                agent.allow(ID)
                await eventually(lambda a=agent: a.watch.listeners(ID) == 1, what="it is asked for lines")
            await run.tunnels(*agents)
            for number, agent in enumerate(agents):
                await agent.get(ID, f"/cart/{number}")
            await eventually(lambda: len(seen) == 2, what="both are told")
            telling.cancel()
    assert sorted((line.path, line.status, line.served) for line in seen) == [
        ("/cart/0", 200, "via_upstream"), ("/cart/1", 200, "via_upstream"),
    ]  # fmt: skip


async def test_a_replica_that_comes_back_is_asked_again(parts, tmp_path, app):
    agent = await parts.agent("agent-0")
    agent.allow(ID)
    async with running(parts, tmp_path, app, agent) as run:
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell_requests(run.held, run.laptop.questions, lambda _: None))
            await eventually(lambda: agent.watch.listeners(ID) == 1, what="it is asked for lines")
            first = set(agent.watch._queues[ID])
            agent.watch.keep(frozenset())
            await eventually(lambda: agent.watch._queues.get(ID, set()) - first, what="it is asked again")
            telling.cancel()


async def test_an_agent_without_lines_is_told_of_once(parts, tmp_path, app):
    agent = await parts.agent("agent-0")
    agent.allow(ID)
    async with running(parts, tmp_path, app, agent) as run:
        question = "http://hairpin.internal/nothing"
        connector = aiohttp.UnixConnector(str(run.laptop.questions))
        async with aiohttp.ClientSession(connector=connector) as http:

            async def knows_us():
                async with http.get(question, headers={"x-hairpin-agent": "ask/agent-0"}) as response:
                    return response.status == 404

            await eventually(knows_us, what="the agent knows the session")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("local_proxy.requests._URL", question)
            with pytest.raises(NoRequestLinesError, match="agent-0 tells no requests"):
                async with asyncio.timeout(30):
                    await tell_requests(run.held, run.laptop.questions, lambda _: None)


async def test_calls_leave_by_the_agent_that_has_the_targets_identity(parts, tmp_path, app):
    """And nowhere else: the steering agent would answer as itself."""
    steering = await parts.agent("agent-0")
    reached = []

    async def accept(reader, writer):
        reached.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as other:
        there = EgressAddress(name="as-checkout-0", host="127.0.0.1", port=other.sockets[0].getsockname()[1])
        async with running(parts, tmp_path, app, steering, egress=(there,)) as run:
            async with aiohttp.ClientSession() as http:
                async with http.get("http://inventory/", proxy=f"http://127.0.0.1:{run.port}") as response:
                    assert response.status == 503
            # The first byte of a TLS handshake: the call's, and that of the question why it failed.
            assert reached == [b"\x16", b"\x16"]
