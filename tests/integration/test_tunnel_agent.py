"""The agent as its users run it, `python -m agent --config FILE`, against a control plane's API over TLS."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.envoy.config import Identity, write_identity
from hairpin.envoy.process import ManagedEnvoy
from hairpin.model.session import AgentAddress
from local_proxy.bootstrap import LaptopSettings, laptop_bootstrap, write_app, write_tunnels
from tests.support.echo_process import echo_process
from tests.support.envoy import eventually
from tests.support.tunnels import AGENT_ID, HOST, free_port

pytestmark = pytest.mark.envoy

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-agent-0"


@dataclass
class Api:
    """The two calls of an agent, and what it said in them."""

    authority: CertificateAuthority
    lifetime: timedelta = timedelta(hours=1)
    certificates: int = 0
    streams: int = 0
    open: int = 0
    tunnels: list[list[str]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def certificate(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "this token is nobody's"}, status=401)
        body = await request.json()
        signed = self.authority.sign(body["certificateRequest"], uris=(AGENT_ID,), lifetime=self.lifetime)
        self.certificates += 1
        return web.json_response(
            {
                "certificate": signed.chain,
                "certificateAuthority": self.authority.certificate,
                "identity": AGENT_ID,
                "notAfter": signed.not_after.isoformat(),
            }
        )

    async def reports(self, request: web.Request) -> web.Response:
        self.streams += 1
        self.open += 1
        try:
            async for line in request.content:
                report = json.loads(line)
                if "tunnels" in report:
                    self.tunnels.append(report["tunnels"])
                self.requests += report.get("requests", [])
        finally:
            self.open -= 1
        return web.json_response({})


@asynccontextmanager
async def serving(api: Api, directory: Path, port: int):
    """The API on HTTPS; the block's value is the runner."""
    key, request = new_key_and_request()
    certificate = directory / "api.pem"
    chain = api.authority.sign(request, ips=(HOST,), lifetime=timedelta(hours=1)).chain
    certificate.write_text(key + chain)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    application = web.Application()
    application.router.add_post("/v1/certificates", api.certificate)
    application.router.add_post("/v1/agents/agent-0/reports", api.reports)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, ssl_context=tls).start()
    try:
        yield
    finally:
        await runner.cleanup()


@dataclass
class Setting:
    directory: Path
    authority: CertificateAuthority
    api_port: int
    ports: dict[str, int]
    file: Path

    async def ready(self) -> int:
        """The status of /ready; 0 while nobody listens."""
        try:
            async with aiohttp.ClientSession() as client, client.get(f"http://{HOST}:{self.ports['ready']}/ready") as r:
                return r.status
        except aiohttp.ClientError:
            return 0

    async def is_ready(self) -> bool:
        return await self.ready() == 200


@pytest.fixture
def setting(tmp_path) -> Setting:
    authority = CertificateAuthority.create("hairpin")
    (tmp_path / "ca.pem").write_text(authority.certificate)
    (tmp_path / "token").write_text(TOKEN + "\n")
    api_port = free_port()
    ports = {name: free_port() for name in ("steer", "tunnel", "egress", "ready")}
    file = tmp_path / "agent.yaml"
    document = {
        "name": "agent-0",
        "namespace": "default",
        "directory": str(tmp_path / "run"),
        "controlPlane": {
            "api": f"https://{HOST}:{api_port}",
            "xds": f"{HOST}:1",
            "authority": str(tmp_path / "ca.pem"),
            "tokenFile": str(tmp_path / "token"),
        },
        "listeners": {name: f"{HOST}:{port}" for name, port in ports.items()},
        "drainSeconds": 0.5,
    }
    file.write_text(yaml.safe_dump(document))
    return Setting(tmp_path, authority, api_port, ports, file)


@asynccontextmanager
async def running(setting: Setting):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "--config", str(setting.file)), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def laptop_of(setting: Setting, app: tuple[str, int]) -> ManagedEnvoy:
    identity = Identity(setting.directory / "id")
    key, request = new_key_and_request()
    chain = setting.authority.sign(request, dns=("alice",), lifetime=timedelta(hours=1)).chain
    write_identity(identity, key=key.encode(), chain=chain.encode(), authority=setting.authority.certificate.encode())
    agent = AgentAddress(
        name="agent-0", host=HOST, tunnel_port=setting.ports["tunnel"], egress_port=setting.ports["egress"]
    )
    settings = LaptopSettings(
        session="alice",
        identity=identity,
        agents=(agent,),
        agent_identity=AGENT_ID,
        egress_port=free_port(),
        directory=setting.directory,
    )
    write_app(settings, app)
    write_tunnels(settings, {})
    return ManagedEnvoy("laptop", laptop_bootstrap(settings), setting.directory / "laptop")


async def test_its_life_from_certificate_to_drain(setting):
    api = Api(setting.authority)
    async with running(setting) as process:
        await eventually(lambda: _status(setting, 503), what="it listens for readiness and waits for the control plane")
        async with serving(api, setting.directory, setting.api_port):
            await eventually(setting.is_ready, what="it is ready")
            await eventually(lambda: api.tunnels, what="it reports")
            assert api.tunnels[0] == []
            async with echo_process("app") as app, await laptop_of(setting, app.http):
                await eventually(lambda: api.tunnels[-1] == ["alice"], what="the tunnel is reported up")
                async with (
                    aiohttp.ClientSession(headers={"x-hairpin-session": "alice"}) as client,
                    client.get(f"http://{HOST}:{setting.ports['steer']}/") as response,
                ):
                    assert (await response.json())["who"] == "app"
                request = await eventually(lambda: api.requests, what="the request is reported")
                assert (request[0]["session"], request[0]["served"]) == ("alice", "via_upstream")
            await eventually(lambda: api.tunnels[-1] == [], what="the tunnel is reported down")
            process.send_signal(signal.SIGTERM)
            await eventually(lambda: _status(setting, 503), what="it is not ready while it drains")
            await eventually(lambda: api.open == 0, what="its stream of reports ends")
            assert await process.wait() == 0
    keys = [path for path in (setting.directory / "run").rglob("*") if b"PRIVATE KEY" in _content(path)]
    assert {path.name for path in keys} == {"identity.pem"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)


async def test_it_outlives_its_control_plane_and_reports_in_full_when_that_is_back(setting):
    first, second = Api(setting.authority), Api(setting.authority)
    async with running(setting), echo_process("app") as app:
        async with serving(first, setting.directory, setting.api_port):
            await eventually(setting.is_ready, what="it is ready")
            laptop = await laptop_of(setting, app.http)
            await laptop.start()
            await eventually(lambda: first.tunnels and first.tunnels[-1] == ["alice"], what="the tunnel is up")
        assert await setting.is_ready()
        async with serving(second, setting.directory, setting.api_port):
            await eventually(lambda: second.tunnels, what="it reports again")
            assert second.tunnels[0] == ["alice"]
            assert second.certificates == 0
            await laptop.stop()
            await eventually(lambda: second.tunnels[-1] == [], what="and goes on reporting")


async def test_its_certificate_is_renewed_at_half_of_its_life(setting):
    api = Api(setting.authority, lifetime=timedelta(seconds=4))
    async with running(setting), serving(api, setting.directory, setting.api_port):
        await eventually(lambda: api.certificates >= 3, what="a third certificate")
        await eventually(setting.is_ready, what="it is ready")


async def test_a_token_that_is_refused_is_an_error_that_says_so(setting):
    (setting.directory / "token").write_text("another")
    async with serving(Api(setting.authority), setting.directory, setting.api_port), running(setting) as process:
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"401" in errors
    assert b"this token is nobody's" in errors
    assert b"Traceback" not in errors


async def test_a_wrong_field_is_an_error_that_names_it(setting):
    setting.file.write_text(setting.file.read_text().replace("drainSeconds: 0.5", "drainSecond: 0.5"))
    async with running(setting) as process:
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().startswith("agent: drainSecond: 0.5 is not a known field; did you mean drainSeconds?")


async def _status(setting: Setting, status: int) -> bool:
    return await setting.ready() == status


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
