"""What crosses the tunnel's port, and what Envoy itself says of the bootstraps."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from agent.bootstrap import agent_bootstrap, request_log_rate
from agent.settings import ControlPlane
from hairpin.envoy.binary import find_envoy
from hairpin.files import write_private
from hairpin.model.mesh import SocketAddress
from hairpin.model.session import AgentAddress
from local_proxy.bootstrap import LaptopSettings, laptop_bootstrap, write_app, write_tunnels
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually
from tests.support.tunnels import AGENT_ID, HOST, tunnels

pytestmark = pytest.mark.envoy

MARKER = "hairpinmarkerabcdefghijklmnopqrstuvwxyz"


async def validate(bootstrap, path) -> str:
    """Envoy's complaint about a bootstrap; empty if it has none."""
    path.write_text(json.dumps(bootstrap))
    process = await asyncio.create_subprocess_exec(
        *(str(find_envoy()), "--mode", "validate", "--config-path", str(path), "--log-level", "warning"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return "" if process.returncode == 0 else output.decode()


KINDS = {
    "in a mesh without interception": {"mesh_outbound": SocketAddress(HOST, 1), "services": ("inventory",)},
    "in a pod": {"egress": SocketAddress("::", 9444), "ready": SocketAddress("::", 9445)},
    "for egress alone": {"steer": None, "tunnel": None},
    "with a control plane's name": {
        "control_plane": ControlPlane(
            api="https://controller.system.svc:9100",
            xds=SocketAddress("controller.system.svc", 9101),
            authority=Path("ca.pem"),
            token_file=Path("token"),
        )
    },
}


@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
async def test_envoy_accepts_the_agents_bootstrap(tmp_path, more):
    async with tunnels(tmp_path) as made:
        settings = made.agent_settings("agent-0", **more)
    write_private(settings.request_log_rate, json.dumps(request_log_rate(settings)).encode())
    assert await validate(agent_bootstrap(settings), tmp_path / "agent.json") == ""
    broken = agent_bootstrap(settings)
    broken["static_resources"]["clusters"][0]["connect_timeout"] = "soon"
    assert await validate(broken, tmp_path / "broken.json")


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("takes", [True, False])
async def test_envoy_accepts_the_laptops_bootstrap(tmp_path, replicas, takes):
    async with tunnels(tmp_path) as made:
        settings = LaptopSettings(
            session="alice",
            identity=made.identity("alice", dns=("alice",)),
            agents=tuple(AgentAddress(name=f"a-{n}", host=HOST, tunnel_port=1, egress_port=2) for n in range(replicas)),
            agent_identity=AGENT_ID,
            egress_port=15001,
            directory=tmp_path,
            tunnels=takes,
        )
    write_app(settings, None)
    write_tunnels(settings, {})
    assert await validate(laptop_bootstrap(settings), tmp_path / "laptop.json") == ""


@asynccontextmanager
async def capture(path, ports):
    """Everything on these ports of loopback, as raw packets in a file."""
    process = await asyncio.create_subprocess_exec(
        *(
            "tcpdump",
            "-i",
            "lo",
            "--immediate-mode",
            "-U",
            "-s",
            "0",
            "-w",
            str(path),
            " or ".join(f"tcp port {port}" for port in ports),
        ),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    try:
        while b"listening on" not in (line := await process.stderr.readline()):
            assert line, "tcpdump ended"
        yield
        await asyncio.sleep(0.5)  # until the kernel has handed over the last packets
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="capturing packets needs root")
@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is missing: apt-get install tcpdump")
async def test_nothing_of_a_request_crosses_the_tunnel_or_the_egress_in_clear(tmp_path):
    (tmp_path / "t").mkdir()
    async with tunnels(tmp_path / "t") as made, echo_process("app") as app:
        agent = await made.agent(mesh_outbound=SocketAddress(*app.http), services=("inventory",))
        agent.allow("alice")
        laptop = await made.laptop("alice", agent, app=app.http)
        await eventually(lambda: agent.answers("alice"), what="the laptop answers")
        settings = agent.settings
        ports = {"plain": settings.steer.port, "tunnel": settings.tunnel.port, "egress": settings.egress.port}
        files = {name: tmp_path / f"{name}.pcap" for name in ports}
        async with capture(files["plain"], [ports["plain"]]), capture(files["tunnel"], [ports["tunnel"]]):
            async with capture(files["egress"], [ports["egress"]]):
                headers = {"x-marker": MARKER}
                answer = await agent.get("alice", f"/?{MARKER}", data=MARKER.encode() * 100)
                assert answer.who == "app"
                async with aiohttp.ClientSession(headers=headers) as client:
                    url = f"http://inventory/{MARKER}"
                    async with client.post(url, data=MARKER.encode() * 100, proxy=laptop.proxy) as response:
                        assert MARKER in await response.text()
    seen = {name: path.read_bytes() for name, path in files.items()}
    assert MARKER.encode() in seen["plain"], "the capture itself sees what is in clear"
    for name in ("tunnel", "egress"):
        assert len(seen[name]) > 4000, f"nothing was captured on the port of {name}"
        assert MARKER.encode() not in seen[name]
