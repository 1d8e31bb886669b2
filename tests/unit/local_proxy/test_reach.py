"""Whether a replica is there, and listeners in place of addresses."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.model.session import AgentAddress, EgressAddress, Session, SessionSpec, SessionStatus
from local_proxy.reach import Direct, PortForwards, Replicas, reachable
from tests.support.ports import free_port


def agent(port, host="127.0.0.1"):
    return AgentAddress(name="agent-0", host=host, tunnel_port=port, egress_port=port)


@pytest.fixture
async def serve():
    servers = []

    async def start(handle, tls=None):
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        return agent(server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def tls(tmp_path):
    authority = CertificateAuthority.create("hairpin")
    key, request = new_key_and_request()
    file = tmp_path / "server.pem"
    file.write_text(key + authority.sign(request, dns=("agent",), lifetime=timedelta(hours=1)).chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.certificate)
    context.load_cert_chain(file)
    return context


async def close(reader, writer):
    writer.close()


async def hold(reader, writer):
    await reader.read()
    writer.close()


async def test_one_that_speaks_tls_is_there(serve, tls):
    assert await reachable(await serve(hold, tls), seconds=30)


async def test_one_that_demands_a_certificate_is_there(serve, tls):
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await reachable(await serve(hold, tls), seconds=30)


async def test_one_that_takes_a_connection_and_closes_it_is_not(serve):
    assert not await reachable(await serve(close))


async def test_one_that_says_nothing_is_not(serve):
    assert not await reachable(await serve(hold), seconds=0.2)


async def test_one_where_nothing_listens_is_not():
    assert not await reachable(agent(free_port()))


class Fake:
    made: list[tuple[str, int]]

    def __init__(self):
        self.made, self.closed = [], 0

    def __call__(self, pod, port):
        self.made.append((pod, port))
        return self

    async def listen(self):
        return "127.0.0.1", 20000 + len(self.made)

    def close(self):
        self.closed += 1


def session(*agents, egress=()):
    status = SessionStatus(agents=agents, egress=egress)
    return Session(
        name="x", namespace="shop", owner="alice", created=datetime.now(UTC), spec=SessionSpec(), status=status
    )


async def test_what_has_no_host_gets_listeners_here_that_stay():
    fake = Fake()
    forwards = PortForwards(fake)
    pod = AgentAddress(name="agent-0", host="", tunnel_port=9443, egress_port=9444)
    out = EgressAddress(name="as-checkout-0", host="", port=9444)
    first = await forwards.replicas(session(pod, egress=(out,)))
    assert first.agents == (dataclasses.replace(pod, host="127.0.0.1", tunnel_port=20001, egress_port=20002),)
    assert first.egress == (dataclasses.replace(out, host="127.0.0.1", port=20003),)
    another = dataclasses.replace(pod, name="agent-1")
    second = await forwards.replicas(session(pod, another))
    assert second.agents[0] == first.agents[0]
    assert fake.made == [
        ("agent-0", 9443),
        ("agent-0", 9444),
        ("as-checkout-0", 9444),
        ("agent-1", 9443),
        ("agent-1", 9444),
    ]
    forwards.close()
    assert fake.closed == 5


async def test_what_has_a_host_is_taken_as_it_is():
    published = agent(9443, host="agents.example.com")
    fake = Fake()
    assert await PortForwards(fake).replicas(session(published)) == Replicas((published,))
    assert await Direct().replicas(session(published)) == Replicas((published,))
    assert fake.made == []
