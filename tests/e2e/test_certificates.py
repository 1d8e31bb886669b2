"""What a certificate or a token of one does not open of another's, in a mesh that runs."""

from __future__ import annotations

import asyncio
import re
import ssl
from datetime import timedelta

import aiohttp
import grpc
import pytest

from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.envoy.config import Identity, write_identity
from hairpin.envoy.process import ManagedEnvoy
from hairpin.model.mesh import AGENT, ENTRY
from hairpin.model.session import AgentAddress
from hairpin.ports import free_ports
from local_proxy.bootstrap import LaptopSettings, laptop_bootstrap, write_app, write_tunnels
from tests.support.ads_client import Client, ads_client
from tests.support.echo_process import echo_process
from tests.support.mesh import eventually
from tests.support.xds import CDS, ECDS, request

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(90)]

REJECTED = "reverse_tunnel.handshake.validation_failed"


class Session:
    """A session made by hand, with a key and a certificate to misuse."""

    def __init__(self, mesh, key, document):
        self.mesh = mesh
        self.name = document["metadata"]["name"]
        self.key = key
        self.chain = document["status"]["certificate"]
        self.authority = document["status"]["certificateAuthority"]

    @property
    def client(self):
        return Client(key=self.key, chain=self.chain, authority=self.authority)


@pytest.fixture(scope="module")
async def session(mesh):
    """alice's, that takes no requests."""
    key, csr = new_key_and_request()
    spec = {"mode": "egress", "certificateRequest": csr, "leaseSeconds": 3600}
    status, document = await mesh.api("alice", "POST", "/v1/sessions", {"spec": spec})
    assert status == 201, document
    return Session(mesh, key, document)


def workload(mesh, name):
    """The certificate of a sidecar."""
    identity = mesh.folder.control_plane_identity(name)
    text = identity.certificate.read_text()
    key = re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n", text, re.DOTALL)[0]
    return Client(key=key, chain=text.replace(key, ""), authority=identity.authority.read_text())


async def asks(mesh, client, node):
    """What xDS says to this client under this node's name: resources' count, or the refusal's code."""
    async with ads_client(mesh.mesh.control_plane.xds.port, client) as stream:
        try:
            agents_own = request(ECDS, "hairpin.egress", node=node)
            await stream.send(agents_own if node.startswith("agent~") else request(CDS, node=node))
            return len((await stream.receive()).resources)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, AssertionError):
            return (await stream.refusal())[0]


NODES = ["sidecar~checkout.default", "sidecar~frontend.default", "entry~entry.default", "agent~hairpin-agent-0.default",
         "sidecar~hairpin-agent-0.default", "sidecar~nobody.default", "", "checkout"]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "its"),
    [
        ("checkout", {"sidecar~checkout.default"}),
        (ENTRY, {"entry~entry.default"}),
        ("hairpin-agent-0", {"sidecar~hairpin-agent-0.default", "agent~hairpin-agent-0.default"}),
    ],
)
async def test_a_workloads_certificate_fetches_its_own_configuration_and_no_others(mesh, who, its):
    for node in NODES:
        answer = await asks(mesh, workload(mesh, who), node)
        if node in its:
            assert isinstance(answer, int) and answer, (node, answer)
        else:
            assert answer in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT), (node, answer)


async def test_a_sessions_certificate_fetches_no_configuration_at_all(mesh, session):
    for node in [*NODES, session.name]:
        answer = await asks(mesh, session.client, node)
        assert answer in (
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.INVALID_ARGUMENT,
        )


async def test_without_a_certificate_or_with_a_foreign_one_nobody_speaks_to_xds(mesh, session):
    foreign = CertificateAuthority.create("hairpin")  # of the same name
    key, csr = new_key_and_request()
    chain = foreign.sign(csr, uris=(mesh.mesh.identity("checkout"),), lifetime=timedelta(hours=1)).chain
    for client in (Client(key="", chain="", authority=session.authority), Client(key, chain, session.authority)):
        assert await asks(mesh, client, "sidecar~checkout.default") is grpc.StatusCode.UNAVAILABLE  # no handshake


def tls(client, folder):
    """A client's side of mutual TLS, whoever the server is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    file = folder / "client.pem"
    file.write_text(client.chain + client.key)
    context.load_cert_chain(file)
    return context


async def handshake(address, context):
    """Whether a server takes a client's certificate: with TLS 1.3 its refusal is what it says first."""
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.wait_for(reader.read(1), 20)
    except TimeoutError:
        return True  # it waits for more
    except OSError:  # an alert, or the end of the connection
        return False
    finally:
        writer.close()
    return True


async def test_the_agent_takes_sessions_certificates_of_its_own_authority_alone(mesh, session, tmp_path):
    key, csr = new_key_and_request()
    foreign = CertificateAuthority.create("hairpin")
    chain = foreign.sign(csr, dns=(session.name,), lifetime=timedelta(hours=1)).chain
    agent = mesh.mesh.agents[0]
    for name in ("tunnel", "egress"):
        address = getattr(agent, name)
        assert await handshake(address, tls(session.client, tmp_path)), name
        assert not await handshake(address, tls(Client(key, chain, ""), tmp_path)), name
        assert not await handshake(address, tls(workload(mesh, "checkout"), tmp_path)), name
    # Nor does a session's certificate open a sidecar.
    inbound = mesh.mesh.workload("checkout").ports[0].inbound
    assert not await handshake(inbound, tls(session.client, tmp_path))
    assert not await handshake(agent.inbound, tls(session.client, tmp_path))


async def test_only_steered_workloads_sidecars_may_send_to_the_agent(mesh, tmp_path):
    async with mesh.laptop("alice", "alice") as alice:
        headers = {"x-hairpin-session": await alice.session()}
        url = f"https://{mesh.mesh.agents[0].inbound}/"

        async def answer(name):
            context = tls(workload(mesh, name), tmp_path)
            async with aiohttp.ClientSession() as client, client.get(url, headers=headers, ssl=context) as response:
                return (await response.json())["who"]

        assert await answer("checkout") == "laptop of alice"
        for name in (ENTRY, "hairpin-agent-0"):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await answer(name)


async def test_one_sessions_certificate_takes_no_tunnel_of_anothers(mesh, session, tmp_path):
    """A laptop with alice's certificate that says it is bob's session, beside bob's own."""
    agent = mesh.mesh.agents[0]
    async with mesh.laptop("bob", "bob") as bob, echo_process("impostor") as impostor:
        settings = LaptopSettings(
            session=await bob.session(),
            identity=Identity(tmp_path / "identity"),
            agents=(AgentAddress(name=agent.name, host=agent.tunnel.host, tunnel_port=agent.tunnel.port, egress_port=agent.egress.port),),
            agent_identity=mesh.mesh.identity(AGENT),
            egress_port=next(free_ports()),
            directory=tmp_path,
        )  # fmt: skip
        authority = session.authority.encode()
        write_identity(settings.identity, key=session.key.encode(), chain=session.chain.encode(), authority=authority)
        write_app(settings, impostor.http)
        write_tunnels(settings, {})
        admin = mesh.agent_admin()
        before = (await admin.stats(REJECTED)).get(REJECTED, 0)

        async def refused():
            return (await admin.stats(REJECTED)).get(REJECTED, 0) > before

        async with ManagedEnvoy("the impostor", laptop_bootstrap(settings), tmp_path / "envoy"):
            await eventually(refused, "the impostor's tunnel is refused")
            answers = [(await mesh.ask("bob"))["who"] for _ in range(20)]
            assert answers == ["laptop of bob"] * 20
        assert not [line for line in bob.errors if "lost" in line]


async def test_a_developers_token_opens_nothing_of_anothers(mesh):
    async with mesh.laptop("alice", "alice") as alice:
        path = f"/v1/sessions/{await alice.session()}"
        key_and_request = new_key_and_request()
        for method, more, body in (
            ("PATCH", "", {"spec": {"localPort": 1}}),
            ("PATCH", "", {"spec": {"certificateRequest": key_and_request[1]}}),
            ("DELETE", "", None),
            ("GET", "?watch=true", None),
        ):
            status, answer = await mesh.api("bob", method, path + more, body)
            assert status == 403, answer
            assert "is alice's" in answer["message"]
        status, seen = await mesh.api("bob", "GET", path)
        assert (status, seen["status"]["owner"]) == (200, "alice")
        assert "certificate" not in seen["status"]
        assert "certificateRequest" not in seen["spec"]
        assert (await mesh.ask("alice"))["who"] == "laptop of alice"


async def test_a_developer_is_no_agent_and_an_agent_no_developer(mesh):
    csr = {"certificateRequest": new_key_and_request()[1]}
    assert (await mesh.api("alice", "POST", "/v1/certificates", csr))[0] == 403
    assert (await mesh.api("alice", "POST", "/v1/agents/hairpin-agent-0/reports", {"tunnels": []}))[0] == 403
    token = mesh.folder.agent("hairpin-agent-0").with_suffix(".token").read_text()
    context = ssl.create_default_context(cafile=str(mesh.folder.root / "hairpin-ca.pem"))
    async with aiohttp.ClientSession(f"https://{mesh.mesh.control_plane.api}") as client:
        for path, headers, status in (
            ("/v1/sessions", {"Authorization": f"Bearer {token}"}, 403),
            ("/v1/proxies", {"Authorization": f"Bearer {token}"}, 403),
            ("/v1/sessions", {"Authorization": "Bearer of nothing"}, 401),
            ("/v1/sessions", {}, 401),
            ("/v1/version", {}, 200),
        ):
            async with client.get(path, headers=headers, ssl=context) as response:
                assert response.status == status, (path, headers)
