"""The agent as a pod runs it: what it takes from its environment, several replicas of a control plane, no privileges."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import psutil
import pytest

from hairpin.certificates import CertificateAuthority, new_key_and_request
from tests.support.ads_client import server_identity
from tests.support.agent_process import ROOT, Api, Setting, laptop_of, new_setting, running, serving
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually
from tests.support.ports import free_port
from tests.support.tunnels import AGENT_ID, HOST
from xds_server.cache.snapshot_cache import SnapshotCache
from xds_server.generate.egress import egress_resource
from xds_server.model.node import Node
from xds_server.model.snapshot import Snapshot
from xds_server.server.ads import AdsServer, ForbiddenProxyError, PeerIdentity, ProxyRegistry, server_credentials

pytestmark = pytest.mark.envoy

ALLOW = {"default": "Allow", "rules": []}
NOT_LEADING = "asked a replica that does not lead"


@asynccontextmanager
async def discovery(authority: CertificateAuthority, port: int, *sessions: str, only_ask: tuple[str, ...] = ()):
    """The discovery service of a control plane: these sessions may use the egress, or ask. Gives the nodes that came."""
    nodes: list[str] = []

    def authorize(identity: PeerIdentity, node: Node) -> str:
        if identity != PeerIdentity(uris=(AGENT_ID,)):
            raise ForbiddenProxyError(f"{identity} is no agent")
        nodes.append(node.id)
        return "agents"

    cache, identity = SnapshotCache(), server_identity(authority)
    server = AdsServer(
        cache=cache,
        registry=ProxyRegistry(),
        authorize=authorize,
        credentials=server_credentials(lambda: identity),
        port=port,
    )
    await server.start()
    cache.set("agents", Snapshot.of([egress_resource(sessions, only_ask)]))
    server.ready.set()
    try:
        yield nodes
    finally:
        await server.stop()


def laptops_tls(setting: Setting, session: str) -> ssl.SSLContext:
    """What a laptop of this session connects to the egress with."""
    key, request = new_key_and_request()
    chain = setting.authority.sign(request, dns=(session,), lifetime=timedelta(hours=1)).chain
    file = setting.directory / f"{session}.pem"
    file.write_text(key + chain)
    tls = ssl.create_default_context(cadata=setting.authority.certificate)
    tls.check_hostname = False
    tls.load_cert_chain(file)
    return tls


@asynccontextmanager
async def asking(setting: Setting, session: str, path: str = "/policy", host: str = "hairpin.internal"):
    """A laptop's question to the agent itself."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=laptops_tls(setting, session))) as client:
        url = f"https://{HOST}:{setting.ports['egress']}{path}"
        async with client.get(url, headers={"Host": host}) as response:
            yield response


async def policy_of(setting: Setting, session: str) -> object:
    """The session's rules as the agent tells them; the status if it does not."""
    async with asking(setting, session) as response:
        return await response.json() if response.status == 200 else response.status


async def test_the_control_plane_is_reached_by_name_and_knows_the_pod(tmp_path):
    port = free_port()
    named = {"name": {"env": "POD_NAME"}, "namespace": {"env": "POD_NAMESPACE"}}
    setting = new_setting(tmp_path, xds=f"localhost:{port}", host="localhost", **named)
    api = Api(setting.authority)
    api.say(**{"alice.shop": ALLOW})
    async with (
        serving(api, tmp_path, setting.api_port),
        discovery(setting.authority, port, "alice.shop") as nodes,
        running(setting, environment={"POD_NAME": "agent-0", "POD_NAMESPACE": "shop"}),
    ):
        await eventually(setting.is_ready, what="it is ready")
        await eventually(lambda: nodes, what="it asks for its configuration")
        assert nodes == ["agent~agent-0.shop"]

        async def allowed() -> bool:
            return await policy_of(setting, "alice.shop") == {"session": "alice.shop", **ALLOW}

        await eventually(allowed, what="the session may use the egress")
        assert await policy_of(setting, "bob.shop") == 403


async def connect(setting: Setting, session: str, authority: str) -> bytes:
    """The status line of a laptop's CONNECT."""
    tls = laptops_tls(setting, session)
    reader, writer = await asyncio.open_connection(HOST, setting.ports["egress"], ssl=tls)
    try:
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode())
        return await asyncio.wait_for(reader.readline(), 20)
    finally:
        writer.close()


async def test_a_session_whose_calls_leave_elsewhere_may_ask_and_not_connect(tmp_path):
    """Its calls leave in its target's name, at other agents; here it asks for its requests, its rules, and names."""
    port = free_port()
    setting = new_setting(tmp_path, xds=f"{HOST}:{port}")
    api = Api(setting.authority)
    api.say(**{"alice.shop": ALLOW, "target.shop": ALLOW})
    async with (
        serving(api, tmp_path, setting.api_port),
        discovery(setting.authority, port, "alice.shop", only_ask=("target.shop",)),
        running(setting),
    ):
        await eventually(setting.is_ready, what="it is ready")

        async def allowed() -> bool:
            return await policy_of(setting, "target.shop") == {"session": "target.shop", **ALLOW}

        await eventually(allowed, what="the session may ask")
        async with asking(setting, "target.shop", "/names/localhost") as response:
            assert "127.0.0.1" in (await response.json())["addresses"]
        async with asking(setting, "target.shop", host="inventory") as response:
            assert response.status == 403
        for authority in ("nobody.invalid:80", "hairpin.internal:80"):
            assert b" 403 " in await connect(setting, "target.shop", authority), authority
        assert b" 502 " in await connect(setting, "alice.shop", "nobody.invalid:80")


async def test_the_authority_may_come_late_and_change(tmp_path):
    setting = new_setting(tmp_path)
    (tmp_path / "ca.pem").unlink()
    first = Api(setting.authority, lifetime=timedelta(seconds=6))
    async with running(setting, log=True):
        async with serving(first, tmp_path, setting.api_port):
            await eventually(lambda: setting.logged("controlPlane.authority"), what="it says what it waits for")
            assert await setting.ready() == 503
            (tmp_path / "ca.pem").write_text("")
            await eventually(lambda: setting.logged("it is empty"), what="an empty file is not enough")
            (tmp_path / "ca.pem").write_text(setting.authority.certificate)
            await eventually(setting.is_ready, what="it is ready")
            assert setting.logged("controlPlane.authority") == 2
        setting.authority = CertificateAuthority.create("another")
        (tmp_path / "ca.pem").write_text(setting.authority.certificate)
        second = Api(setting.authority)
        async with serving(second, tmp_path, setting.api_port), echo_process("app") as app:
            await eventually(lambda: second.tunnels, what="it trusts the new authority")
            await eventually(lambda: second.certificates, what="and gets a certificate of it")
            async with await laptop_of(setting, app.http):
                await eventually(lambda: second.tunnels[-1] == ["alice"], what="and so does its Envoy")
    assert setting.logged("another authority signs") == 1


async def test_a_replica_that_does_not_lead_is_left_for_another_one(tmp_path):
    setting = new_setting(tmp_path)
    api = Api(setting.authority, not_leading=5)
    async with serving(api, tmp_path, setting.api_port), running(setting, log=True):
        await eventually(lambda: api.tunnels, what="the leader takes its reports")
        assert api.tunnels[0] == []
        assert api.streams == 6
        assert len(api.connections) == 6
        assert setting.logged("reports") == setting.logged(NOT_LEADING) == 1
        await eventually(setting.is_ready, what="it is ready")


async def test_after_a_failover_the_new_leader_hears_everything_at_once(tmp_path):
    setting = new_setting(tmp_path)
    first, second = Api(setting.authority), Api(setting.authority, not_leading=2)
    async with running(setting, log=True), echo_process("app") as app:
        async with serving(first, tmp_path, setting.api_port):
            await eventually(setting.is_ready, what="it is ready")
            laptop = await laptop_of(setting, app.http)
            await laptop.start()
            await eventually(lambda: first.tunnels and first.tunnels[-1] == ["alice"], what="the tunnel is up")
        async with serving(second, tmp_path, setting.api_port):
            await eventually(lambda: second.tunnels, what="the new leader takes its reports")
            assert second.tunnels[0] == ["alice"]
            assert await setting.is_ready()
            await laptop.stop()


async def test_egress_policies_are_followed_and_outlive_the_control_plane(tmp_path):
    port = free_port()
    setting = new_setting(tmp_path, xds=f"{HOST}:{port}")
    first, second = Api(setting.authority), Api(setting.authority)
    deny = {"default": "Deny", "rules": [{"number": 1, "action": "Allow", "ports": [80]}]}
    first.say(**{"alice.shop": deny})
    async with discovery(setting.authority, port, "alice.shop"), running(setting, log=True):
        async with serving(first, tmp_path, setting.api_port):

            async def has(rules: object) -> bool:
                return await policy_of(setting, "alice.shop") == rules

            await eventually(setting.is_ready, what="it is ready")
            await eventually(lambda: has({"session": "alice.shop", **deny}), what="the rules are there")
            first.say(**{"alice.shop": ALLOW})
            await eventually(lambda: has({"session": "alice.shop", **ALLOW}), what="new rules")
            first.policies.append({"nonsense": True})
            first.policies_now.set()
            await eventually(lambda: setting.logged("policies: "), what="a line that can't be read is told")
        assert await has({"session": "alice.shop", **ALLOW})
        second.say(**{"alice.shop": deny})
        async with serving(second, tmp_path, setting.api_port):
            await eventually(lambda: has({"session": "alice.shop", **deny}), what="the rules of the one that came back")
            assert second.policy_streams == 1


@pytest.mark.parametrize("status", [404, 500])
async def test_without_the_first_word_on_policies_it_serves_steered_requests_alone(tmp_path, status):
    """A control plane that answers with an error is not one without policies."""
    port = free_port()
    setting = new_setting(tmp_path, xds=f"{HOST}:{port}")
    api = Api(setting.authority, without_policies=status)
    async with (
        discovery(setting.authority, port, "alice"),
        serving(api, tmp_path, setting.api_port),
        running(setting, log=True),
        echo_process("app") as app,
    ):
        await eventually(setting.is_ready, what="it is ready")
        async with await laptop_of(setting, app.http):
            await eventually(lambda: api.tunnels and api.tunnels[-1] == ["alice"], what="the tunnel is up")

            async def unknown() -> bool:
                return await policy_of(setting, "alice") == 503

            await eventually(unknown, what="the session may use the egress, and its rules are not known")
            assert setting.logged("agent-0/policies") == 1


async def test_a_mesh_on_one_machine_has_no_policies(tmp_path):
    port = free_port()
    outbound = {"outbound": f"{HOST}:{free_port()}", "services": ["inventory"]}
    setting = new_setting(tmp_path, xds=f"{HOST}:{port}", mesh=outbound)
    async with (
        discovery(setting.authority, port, "alice"),
        serving(Api(setting.authority), tmp_path, setting.api_port),
        running(setting),
    ):
        await eventually(setting.is_ready, what="it is ready")

        async def allowed() -> bool:
            return await policy_of(setting, "alice") == {"session": "alice", **ALLOW}

        await eventually(allowed, what="everything is allowed")


async def test_an_egress_only_agent_is_ready_when_it_once_knew_who_may_use_it(tmp_path):
    port = free_port()
    setting = new_setting(tmp_path, xds=f"{HOST}:{port}", role="egress")
    api = Api(setting.authority)
    api.say(**{"alice.shop": ALLOW})
    async with serving(api, tmp_path, setting.api_port), running(setting):
        await eventually(lambda: api.tunnels, what="its Envoy runs and it reports")
        assert await setting.ready() == 503
        async with discovery(setting.authority, port, "alice.shop"):
            await eventually(setting.is_ready, what="it is ready")
            assert await policy_of(setting, "alice.shop") == {"session": "alice.shop", **ALLOW}
        assert await setting.is_ready()
        assert await policy_of(setting, "alice.shop") == {"session": "alice.shop", **ALLOW}


UID = 65532
CONFINED = r"""
set -e
config=$1 closed=$2 needed=$3; shift 3
if [ -n "$closed" ]; then  # what the agent runs from may lie below directories that are root's alone
  holds=$config/needed; mkdir "$holds"; n=0
  for place in $needed; do n=$((n + 1)); mkdir "$holds/$n"; mount --bind "$place" "$holds/$n"; done
  for place in $closed; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
  n=0
  for place in $needed; do n=$((n + 1)); mkdir -p "$place"; mount --bind "$holds/$n" "$place"; done
  for place in $needed $closed; do mount -o remount,bind,ro "$place"; done
fi
mkdir -p "$config/hold"; mount --bind "$config" "$config/hold"
hold=$config/hold
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 777 /run/hairpin; mkdir /run/config; cp "$hold"/agent.yaml "$hold"/ca.pem "$hold"/token /run/config
mount -t tmpfs -o mode=777 tmpfs /run/hairpin  # as an emptyDir is
mount -o remount,bind,ro /run
mount -o remount,bind,ro /
for place in / /tmp /var/tmp /run; do
  if touch "$place/hairpin-probe" 2> /dev/null; then echo "$place can be written" >&2; exit 99; fi
done
exec setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "$@"
"""


def closed_ancestors(*places: Path) -> list[str]:
    """The topmost directories above these that only their owner enters."""
    found = []
    for place in places:
        above = [parent for parent in reversed(place.parents) if not parent.stat().st_mode & 0o001]
        found += [str(above[0])] if above else []
    return sorted(set(found))


@pytest.mark.root
async def test_it_runs_without_root_capabilities_or_a_writable_root(tmp_path):
    """As restricted Pod Security has it; all it writes is its own directory, not even /tmp."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        pytest.skip("needs root, unshare and setpriv")
    setting = new_setting(
        tmp_path,
        directory="/run/hairpin",
        controlPlane={
            "api": f"https://{HOST}:{(port := free_port())}",
            "xds": f"{HOST}:1",
            "authority": "/run/config/ca.pem",
            "tokenFile": "/run/config/token",
        },
    )
    needed = [Path(sys.base_prefix), Path(sys.prefix), ROOT]
    inside = [place for place in needed if closed_ancestors(place)]
    confined = ("unshare", "--mount", "--propagation", "private", "sh", "-c", CONFINED, "sh", str(tmp_path))
    prefix = (*confined, " ".join(closed_ancestors(*needed)), " ".join(map(str, inside)))
    api = Api(setting.authority)
    async with (
        serving(api, tmp_path, port),
        running(setting, prefix=prefix, config="/run/config/agent.yaml", log=True) as process,
    ):

        async def ready() -> bool:
            assert process.returncode is None, setting.log.read_text()
            return await setting.is_ready()

        await eventually(ready, what="it is ready")
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(everyone) >= 2, "the agent and its Envoy"
        for one in everyone:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{one.pid}/status").read_text().splitlines())
            assert status["Uid"].split() == [str(UID)] * 4
            assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
            assert status["NoNewPrivs"] == "1"
        async with echo_process("app") as app, await laptop_of(setting, app.http):
            await eventually(lambda: api.tunnels and api.tunnels[-1] == ["alice"], what="the tunnel is up")
            url = f"http://{HOST}:{setting.ports['steer']}/"
            async with aiohttp.ClientSession(headers={"x-hairpin-session": "alice"}) as client:
                async with client.get(url) as response:
                    assert (await response.json())["who"] == "app"
    assert not setting.logged("Read-only")
