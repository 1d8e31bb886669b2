"""What a developer's process calls: out through the mesh, as the agent, and to nowhere it must not go."""

from __future__ import annotations

import asyncio
import errno
import json
import sys

import aiohttp
import pytest

from hairpin.model.mesh import AGENT
from tests.support.mesh import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

GRPC_CALL = """
import json, sys, grpc
for target in ("inventory:9090", "inventory.default.svc.cluster.local:9090"):
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary("/hairpin.test.Echo/Unary")
        print(call(b'{"message": "hello"}', metadata=(("x-env", "alice"),), timeout=20).decode())
"""
HTTP_CALL = """
import urllib.request
request = urllib.request.Request("http://inventory/stock", headers={"x-env": "alice"})
print(urllib.request.urlopen(request, timeout=20).read().decode().strip())
"""


URLS = (
    "http://inventory/",
    "http://inventory:80/x?y=1",
    "http://inventory.default/",
    "http://inventory.default.svc.cluster.local/",
)


def check_caller(mesh, answer, environment="alice"):
    """inventory was reached, by the agent, with the environment's header."""
    assert answer["who"] == "inventory"
    caller = answer["headers"]["x-forwarded-client-cert"]
    assert f"URI={mesh.mesh.identity(AGENT)}" in caller
    assert caller.count("URI=") == 1  # and by nobody else on its behalf
    assert answer["headers"]["x-env"] == environment


@pytest.fixture(scope="module")
async def alice(mesh):
    async with mesh.laptop("alice", "alice") as run:
        yield run


@pytest.fixture(scope="module")
async def carol(mesh):
    """One whose command has proxy variables."""
    async with mesh.laptop("bob", "carol", "--intercept", "off", who="laptop of carol") as run:
        yield run


@pytest.mark.parametrize("url", URLS)
async def test_a_steered_request_goes_on_through_the_mesh_as_the_agent(mesh, alice, url):
    answer = await mesh.ask("alice", path=f"/call?url={url}")
    assert answer["who"] == "laptop of alice"
    check_caller(mesh, answer["answer"])


@pytest.mark.parametrize("form", ["", "&tunnel=1"])
@pytest.mark.parametrize("url", URLS)
async def test_the_same_by_proxy_variables(mesh, carol, url, form):
    answer = await mesh.ask("carol", path=f"/call?url={url}{form}")
    assert answer["who"] == "laptop of carol"
    check_caller(mesh, answer["answer"], "carol")


async def test_a_call_between_two_laptops_goes_by_the_mesh(mesh, alice):
    """alice's checkout calls inventory, which is hers too: the environment's header finds its way."""
    async with mesh.laptop("bob", "alice", target="inventory:http", who="bob's inventory") as bob:
        answer = await mesh.ask("alice", path="/call?url=http://inventory/")
        assert (answer["who"], answer["answer"]["who"]) == ("laptop of alice", "bob's inventory")
        assert f"URI={mesh.mesh.identity(AGENT)}" in answer["answer"]["headers"]["x-forwarded-client-cert"]
        assert (await mesh.ask(path="/call?url=http://inventory/"))["answer"]["who"] == "inventory"
        await bob.said(r"-> GET inventory/ 200 \d+ ms$")
    check_caller(mesh, (await mesh.ask("alice", path="/call?url=http://inventory/"))["answer"])


@pytest.mark.parametrize(("script", "answers"), [(HTTP_CALL, 1), (GRPC_CALL, 2)], ids=["http", "grpc"])
async def test_egress_alone_is_the_same_and_leaves_no_trace_in_any_sidecar(mesh, alice, script, answers):
    await alice.said("takes the requests")
    before = await match_policies(mesh)
    arguments = (
        "run",
        "--mode",
        "egress",
        "--env",
        "alice",
        "--",
        sys.executable,
        "-c",
        f"{script}\nimport time; time.sleep(60)",
    )
    async with mesh.hairpin("bob", *arguments, environment={"PYTHONUNBUFFERED": "1"}) as run:
        session = await run.session()
        await eventually(lambda: printed(run, answers), "its calls are answered")
        for line in run.output:
            check_caller(mesh, json.loads(line))
        for name, proxy in mesh.supervisor.proxies.items():
            assert session not in json.dumps(await proxy.admin.config_dump()), name
        assert await match_policies(mesh) == before
        assert (await mesh.api("bob", "GET", f"/v1/sessions/{session}"))[1]["status"]["phase"] == "Ready"
    # Not that a dump could not show a session: alice's is in checkout's.
    assert await alice.session() in json.dumps(await mesh.supervisor.proxies["checkout"].admin.config_dump())


async def printed(run, lines):
    assert run.process.returncode is None, run.errors
    return len(run.output) >= lines


async def match_policies(mesh):
    """The policies that sidecars judge requests by, as text."""
    dumps = {name: json.dumps(await proxy.admin.config_dump()) for name, proxy in mesh.supervisor.proxies.items()}
    return {name: dump.count('"shadow_rules"') for name, dump in dumps.items()}


async def connect(port, authority, version="1.1"):
    """The answer to a CONNECT by the laptop's HTTP proxy: status and headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"CONNECT {authority} HTTP/{version}\r\nHost: {authority}\r\n\r\n".encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode().split("\r\n")
        return int(head[0].split()[1]), dict(line.lower().split(": ", 1) for line in head[1:] if line)
    finally:
        writer.close()


def forbidden(mesh):
    """What runs on this machine, by every way to say so, and the cloud's metadata."""
    agent, checkout = mesh.mesh.agents[0], mesh.mesh.workload("checkout")
    ports = {
        "steer": agent.steer, "tunnel": agent.tunnel, "egress": agent.egress, "ready": agent.ready, "inbound": agent.inbound,
        "outbound": agent.outbound, "xds": mesh.mesh.control_plane.xds, "api": mesh.mesh.control_plane.api,
        "app": checkout.ports[0].app, "sidecar": checkout.outbound, "entry": mesh.mesh.entry.address,
    }  # fmt: skip
    yield from ((f"the agent's machine: {name}", str(address)) for name, address in ports.items())
    steer = agent.steer.port
    hosts = ("localhost", "[::1]", "0.0.0.0", "127.1", "2130706433", "[::ffff:127.0.0.1]", "127.255.0.1")
    yield from ((f"its loopback as {host}", f"{host}:{steer}") for host in hosts)
    yield from (("metadata", f"{host}:80") for host in ("169.254.169.254", "[fd00:ec2::254]", "[::ffff:a9fe:a9fe]"))


async def test_nothing_on_the_agents_own_machine_is_reached(mesh, alice):
    port = await alice.egress_port()
    for what, authority in forbidden(mesh):
        status, headers = await connect(port, authority)
        assert (status, bool(headers.get("x-hairpin-refused"))) == (403, True), what
    await alice.said(r"<- CONNECT 169\.254\.169\.254:80 403 \d+ ms \(refused: .*link-local.*\)")
    assert (await connect(port, "inventory:80"))[0] == 200


async def test_nothing_there_is_reached_by_an_absolute_url_either(mesh, alice):
    proxy = f"http://127.0.0.1:{await alice.egress_port()}"
    async with aiohttp.ClientSession() as client:
        for what, authority in forbidden(mesh):
            async with client.get(f"http://{authority}/", proxy=proxy) as response:
                assert response.status >= 400, what
                assert not await response.read() or b'"who"' not in await response.read(), what


async def test_nothing_there_is_reached_by_the_host_of_a_request_inside_a_connection_to_the_mesh(mesh, alice):
    """A CONNECT to a name of the mesh is allowed; what goes through it names a host of its own."""
    port = await alice.egress_port()
    session = await alice.session()
    for what, authority in forbidden(mesh):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT inventory:80 HTTP/1.1\r\nHost: inventory:80\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        request = f"GET / HTTP/1.1\r\nHost: {authority}\r\nx-hairpin-session: {session}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.close()
        assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 404 ", b"HTTP/1.1 502 ")), (what, answer)


async def test_a_name_that_nobody_has_is_no_answer(mesh, alice):
    answer = await connect(await alice.egress_port(), "nobody.invalid:80")
    assert answer[0] == 502
    status, _ = await connect(await alice.egress_port(), "inventory:81")
    assert status in (200, 404, 502, 503)  # a port that the Service does not have: no answer comes through it


PYTHONS_TUNNEL = """
import http.client, os, sys, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["https_proxy"])
connection = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=20)
connection.set_tunnel("inventory", 80)
connection.request("GET", "/stock", headers={"x-env": "alice"})
print(connection.getresponse().read().decode().strip())
"""


async def test_a_connect_of_http_1_0_is_one_too(mesh, alice):
    """As Python's own library sends it before 3.12, and so requests and pip."""
    port = await alice.egress_port()
    assert (await connect(port, "inventory:80", "1.0"))[0] == 200
    assert (await connect(port, "nobody.invalid:80", "1.0"))[0] == 502
    arguments = ("run", "--mode", "egress", "--intercept", "off", "--", sys.executable, "-c", PYTHONS_TUNNEL)
    run = await mesh.command("bob", *arguments)
    assert len(run.output) == 1, run.errors
    check_caller(mesh, json.loads(run.output[0]))


async def test_an_ended_sessions_egress_is_refused(mesh):
    """Also while its process and its Envoy are there still: frozen, they hear of nothing."""
    async with mesh.hairpin("bob", "run", "--mode", "egress", "--", "sleep", "60") as run:
        session, port = await run.session(), await run.egress_port()
        assert (await connect(port, "inventory:80"))[0] == 200
        run.process.send_signal(19)  # SIGSTOP: its Envoy goes on
        try:
            stopped = await mesh.command("bob", "stop", session)
            assert stopped.process.returncode == 0

            async def refused():
                return (await connect(port, "inventory:80"))[0] == 403

            await eventually(refused, "the egress of an ended session is refused")
        finally:
            run.process.send_signal(18)
        assert await run.ended() == 1


async def test_without_interception_local_hosts_stay_local_and_the_rest_goes_by_the_proxy(mesh):
    script = "import os; print(os.environ['http_proxy'], os.environ['no_proxy'])"
    run = await mesh.command(
        "bob",
        "run",
        "--mode",
        "egress",
        "--egress-port",
        "0",
        "--local",
        "db.internal",
        "--",
        sys.executable,
        "-c",
        script,
    )
    assert run.process.returncode == 2  # 0 is no port
    run = await mesh.command(
        "bob", "run", "--mode", "egress", "--intercept", "off", "--local", "db.internal", "--", sys.executable, "-c", script
    )  # fmt: skip
    assert run.output == [f"http://127.0.0.1:{await run.egress_port()} localhost,127.0.0.1,::1,db.internal"]


INTERCEPTED = """
import json, socket, urllib.error, urllib.request
from os import environ
assert not [name for name in environ if name.lower().endswith("_proxy")], environ
print(urllib.request.urlopen(urllib.request.Request("http://inventory/", headers={"x-env": "alice"}), timeout=20).read().decode().strip())
try:
    socket.getaddrinfo("nowhere.shop", 80)
except socket.gaierror as error:
    print(json.dumps({"nowhere": error.errno == socket.EAI_NONAME}))
print(json.dumps({"metadata": socket.socket().connect_ex(("169.254.169.254", 80))}))
"""


async def test_an_intercepted_program_needs_no_proxy(mesh):
    """The same call without proxy variables; an unknown name; an address that the agent refuses, and the line about it."""
    run = await mesh.command(
        "bob", "run", "--mode", "egress", "--", sys.executable, "-c", INTERCEPTED,
        environment={"https_proxy": "http://proxy.example:3128"},
    )  # fmt: skip
    assert run.process.returncode == 0, run.errors
    called, unknown, refused = map(json.loads, run.output)
    check_caller(mesh, called)
    assert unknown == {"nowhere": True}
    assert refused == {"metadata": errno.ECONNREFUSED}
    assert any("169.254.169.254:80 is refused" in line for line in run.errors), run.errors


async def test_explain_egress_asks_the_mesh_and_leaves_nothing(mesh):
    async def explained(*words):
        run = await mesh.command("bob", "explain-egress", *words)
        return run.process.returncode, run.output, run.errors

    async def sessions():
        return {item["metadata"]["name"] for item in (await mesh.api("bob", "GET", "/v1/sessions"))[1]["items"]}

    before = await sessions()
    assert await explained("inventory:80") == (
        0,
        [
            "inventory:80 goes into the mesh: by default",
            "inventory has no address of its own in this mesh: the command gets one that stands for the name",
            "allowed: the agent connects to inventory:80",
        ],
        [],
    )
    code, lines, errors = await explained("169.254.169.254:80")
    assert (code, errors) == (7, [])
    assert lines[-1].startswith("refused by the agent: ")
    assert "link-local" in lines[-1]
    code, lines, _ = await explained("nowhere.invalid:80")
    assert (code, lines[-1].startswith("the command is told that there is no such name")) == (3, True)
    assert (await explained("inventory:80", "--refuse", "inventory"))[0] == 7
    assert await sessions() <= before
