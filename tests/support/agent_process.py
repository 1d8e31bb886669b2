"""The agent as its users run it, `python -m agent --config FILE`, and the API of a control plane over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.envoy.config import Identity, write_identity
from hairpin.envoy.process import ManagedEnvoy
from hairpin.model.session import AgentAddress
from local_proxy.bootstrap import LaptopSettings, laptop_bootstrap, write_app, write_tunnels
from tests.support.ports import free_port
from tests.support.tunnels import AGENT_ID, HOST, Laptop

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
    not_leading: int = 0
    """How many more streams of reports are answered that another replica leads."""
    policies: list[dict[str, Any]] = field(default_factory=list)
    """Lines of egress policies; see `without_policies`."""
    policies_now: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a line was added."""
    without_policies: int = 404
    """The status of the answer while there are none."""
    policy_streams: int = 0
    connections: set[tuple[str, int]] = field(default_factory=set)
    """From where reports came."""

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
        self.connections.add(request.transport.get_extra_info("peername"))
        if self.not_leading:
            self.not_leading -= 1
            message = "not the leader: hairpin-controller-1 is"
            return web.json_response({"kind": "Status", "message": message}, status=503)
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

    def say(self, **sessions: Any) -> None:
        """New rules, by session."""
        self.policies.append({"sessions": sessions})
        self.policies_now.set()

    async def policy(self, request: web.Request) -> web.StreamResponse:
        if not self.policies:
            return web.json_response({"message": "no such path"}, status=self.without_policies)
        self.policy_streams += 1
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        sent = len(self.policies) - 1
        while True:
            self.policies_now.clear()
            for line in self.policies[sent:]:
                await response.write(json.dumps(line).encode() + b"\n")
            sent = len(self.policies)
            await self.policies_now.wait()


@asynccontextmanager
async def serving(api: Api, directory: Path, port: int):
    """The API on HTTPS; the block's value is the runner."""
    key, request = new_key_and_request()
    certificate = directory / "api.pem"
    chain = api.authority.sign(request, ips=(HOST,), dns=("localhost",), lifetime=timedelta(hours=1)).chain
    certificate.write_text(key + chain)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    application = web.Application()
    application.router.add_post("/v1/certificates", api.certificate)
    application.router.add_post("/v1/agents/agent-0/reports", api.reports)
    application.router.add_get("/v1/agents/agent-0/policies", api.policy)
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

    @property
    def log(self) -> Path:
        """Where `running` writes what the agent logs, if asked to."""
        return self.directory / "agent.log"

    def logged(self, text: str) -> int:
        """How many lines of it have this text."""
        return sum(text in line for line in self.log.read_text().splitlines())

    async def ready(self) -> int:
        """The status of /ready; 0 while nobody listens."""
        try:
            async with aiohttp.ClientSession() as client, client.get(f"http://{HOST}:{self.ports['ready']}/ready") as r:
                return r.status
        except aiohttp.ClientError:
            return 0

    async def is_ready(self) -> bool:
        return await self.ready() == 200


def new_setting(directory: Path, /, *, xds: str = f"{HOST}:1", host: str = HOST, **fields: Any) -> Setting:
    """Files for an agent.

    Args:
        directory: where.
        xds: the address of the discovery service; nobody's by default.
        host: the host in the API's URL.
        fields: replace its settings' own.
    """
    authority = CertificateAuthority.create("hairpin")
    (directory / "ca.pem").write_text(authority.certificate)
    (directory / "token").write_text(TOKEN + "\n")
    api_port = free_port()
    ports = {name: free_port() for name in ("steer", "tunnel", "egress", "ready")}
    file = directory / "agent.yaml"
    document = {
        "name": "agent-0",
        "namespace": "default",
        "directory": str(directory / "run"),
        "controlPlane": {
            "api": f"https://{host}:{api_port}",
            "xds": xds,
            "authority": str(directory / "ca.pem"),
            "tokenFile": str(directory / "token"),
        },
        "listeners": {
            name: f"{HOST}:{port}"
            for name, port in ports.items()
            if fields.get("role") != "egress" or name in ("egress", "ready")
        },
        "drainSeconds": 0.5,
    }
    file.write_text(yaml.safe_dump({**document, **fields}))
    return Setting(directory, authority, api_port, ports, file)


@asynccontextmanager
async def running(
    setting: Setting,
    *,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    log: bool = False,
    config: str = "",
):
    """The agent's process, by a `prefix` of its command.

    Args:
        setting: its files.
        prefix: what runs the command.
        environment: further variables.
        log: whether its stderr goes to `setting.log`; else it is a pipe.
        config: the file of its settings, where `prefix` has it elsewhere.
    """
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(setting.log.open("wb")) if log else asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "agent", "--config", config or str(setting.file)),
            cwd=ROOT,
            stderr=errors,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    except Exception as error:
        error.add_note(await _last_words(process, setting.log if log else None))
        raise
    finally:
        await _last_words(process, None)


async def _last_words(process: asyncio.subprocess.Process, log: Path | None) -> str:
    """Ends the agent, and tells what it has logged."""
    if process.returncode is None:
        process.kill()
    _, errors = await process.communicate()
    said = log.read_text() if log else (errors or b"").decode(errors="replace")
    return f"the agent ended with {process.returncode}; it logged:\n{said}"


async def laptop_of(setting: Setting, app: tuple[str, int]) -> ManagedEnvoy:
    """Alice's Envoy, not started yet. It dials again at once, as a laptop does: Envoy alone would after ten seconds."""
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
    laptop = Laptop(settings=settings, lines=[])
    return ManagedEnvoy("laptop", laptop_bootstrap(settings), setting.directory / "laptop", on_line=laptop.on_line)


async def has_status(setting: Setting, status: int) -> bool:
    return await setting.ready() == status


def content_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
