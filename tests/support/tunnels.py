"""Agents' and laptops' Envoys with tunnels between them: real ones, on loopback, without a control plane.

The one resource that an agent's Envoy discovers, `hairpin.egress`, comes from a file here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from agent.bootstrap import agent_bootstrap, request_log_rate
from agent.judge import Judge
from agent.laptops import Laptops, RequestWatch
from agent.names import Names
from agent.reports import Reports
from agent.settings import AgentSettings, ControlPlane
from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.envoy.config import Config, Identity, write_identity
from hairpin.envoy.process import ManagedEnvoy
from hairpin.files import write_private
from hairpin.model.environment import Environment
from hairpin.model.mesh import SocketAddress
from hairpin.model.session import AgentAddress
from local_proxy.bootstrap import LaptopSettings, laptop_bootstrap, write_app, write_tunnels
from tests.support.ports import free_port

AGENT_ID = "spiffe://hairpin.local/ns/default/sa/hairpin-agent"
HOST = "127.0.0.1"
REDIAL_SECONDS = 0.1


def send(envoy: ManagedEnvoy, number: signal.Signals) -> None:
    assert envoy.pid
    os.kill(envoy.pid, number)


def egress_policy(*sessions: str) -> Config:
    """`hairpin.egress` for these sessions, exactly as the control plane must send it."""
    return {
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "hairpin.egress",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {
                "action": "ALLOW",
                "policies": {
                    session: {
                        "permissions": [{"any": True}],
                        "principals": [
                            {
                                "custom": {
                                    "name": "envoy.rbac.principals.mtls_authenticated",
                                    "typed_config": {
                                        "@type": "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
                                        "san_matcher": {"san_type": "DNS", "matcher": {"exact": session}},
                                    },
                                }
                            }
                        ],
                    }
                    for session in sessions
                },
            },
        },
    }


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def who(self) -> str:
        """The echo server that answered."""
        return str(json.loads(self.body)["who"]) if self.status == 200 else ""


@dataclass(slots=True, kw_only=True)
class AgentProxy:
    """One replica's Envoy, with its judge and its reports."""

    settings: AgentSettings
    envoy: ManagedEnvoy
    reports: Reports
    watch: RequestWatch
    judge: Judge
    names: Names
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> AgentAddress:
        s = self.settings
        return AgentAddress(name=s.name, host=HOST, tunnel_port=s.tunnel.port, egress_port=s.egress.port)

    @property
    def steer(self) -> tuple[str, int]:
        return self.settings.steer.host, self.settings.steer.port

    def allow(self, *sessions: str) -> None:
        content = json.dumps({"resources": [egress_policy(*sessions)]}).encode()
        write_private(self.settings.directory / "egress.json", content)

    async def get(self, session: str, path: str = "/", **arguments: Any) -> Answer:
        """The answer to a steered request."""
        async with (
            aiohttp.ClientSession(headers={"x-hairpin-session": session}) as client,
            client.request("GET", f"http://{HOST}:{self.settings.steer.port}{path}", **arguments) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    def signal(self, number: signal.Signals) -> None:
        send(self.envoy, number)

    def saw(self, session: str, event: str) -> bool:
        return any(line.get("event") == event and line["session"] == session for line in self.lines)

    async def answers(self, session: str) -> bool:
        return (await self.get(session)).status == 200


@dataclass(slots=True, kw_only=True)
class Laptop:
    """A laptop's Envoy that dials again, as local_proxy does, when a tunnel is lost or refused."""

    settings: LaptopSettings
    lines: list[dict[str, Any]]
    generations: Counter[str] = field(default_factory=Counter)
    envoy: ManagedEnvoy = field(init=False)

    def on_line(self, line: bytes) -> None:
        entry = json.loads(line)
        self.lines.append(entry)
        if entry.get("event") in ("connection_closed", "handshake_failure"):
            name = entry["cluster"].removeprefix("agent/")
            asyncio.get_running_loop().call_later(REDIAL_SECONDS, self.redial, name)

    def redial(self, agent: str) -> None:
        if self.settings.tunnels_file.parent.exists():
            self.generations[agent] += 1
            write_tunnels(self.settings, self.generations)

    def signal(self, number: signal.Signals) -> None:
        send(self.envoy, number)

    @property
    def proxy(self) -> str:
        return f"http://{HOST}:{self.settings.egress_port}"


class Tunnels:
    """A small CA, agents and laptops; everything ends with the block of `tunnels`."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.authority = CertificateAuthority.create("hairpin")

    def identity(self, name: str, **names: Sequence[str]) -> Identity:
        """A new certificate under `name`; another call with it renews the files."""
        identity = Identity(self._directory / f"id-{name}")
        key, request = new_key_and_request()
        chain = self.authority.sign(request, lifetime=timedelta(hours=1), **names).chain
        write_identity(identity, key=key.encode(), chain=chain.encode(), authority=self.authority.certificate.encode())
        return identity

    def agent_settings(self, name: str, **more: Any) -> AgentSettings:
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        addresses = {kind: SocketAddress(HOST, free_port()) for kind in ("steer", "tunnel", "egress", "ready")}
        plane = ControlPlane(
            api="https://127.0.0.1:1", xds=SocketAddress(HOST, 1), authority=directory, token_file=directory
        )
        settings = AgentSettings(
            **{"name": name, "namespace": "default", "directory": directory, "control_plane": plane} | addresses | more
        )
        identity = self.identity(name, uris=(AGENT_ID,))
        assert not settings.identity.directory.exists()
        settings.identity.directory.symlink_to(identity.directory)
        return settings

    async def agent(self, name: str = "agent-0", judge: Judge | None = None, **more: Any) -> AgentProxy:
        """A replica that runs."""
        settings = self.agent_settings(name, **more)
        judge, watch = judge or Judge(), RequestWatch()
        names = Names.of(settings, judge)
        judge.policies.on_sessions = watch.keep
        for server in (
            await judge.serve(settings.judge_socket),
            await Laptops(watch, names).serve(settings.laptops_socket),
        ):
            self._stack.push_async_callback(server.cleanup)
        write_private(settings.request_log_rate, json.dumps(request_log_rate(settings)).encode())
        reports = Reports(watch.seen)
        lines: list[dict[str, Any]] = []

        def on_line(line: bytes) -> None:
            lines.append(json.loads(line))
            reports.on_line(line)

        bootstrap = from_file(agent_bootstrap(settings), settings.directory / "egress.json")
        envoy = await self._start(name, bootstrap, on_line, lambda code: reports.reset())
        return AgentProxy(
            settings=settings, envoy=envoy, reports=reports, watch=watch, judge=judge, names=names, lines=lines
        )

    async def laptop(
        self,
        session: str,
        *agents: AgentProxy,
        app: tuple[str, int] | None = None,
        certificate: str = "",
        name: str = "",
        tunnels: bool = True,
        inject: Environment | None = None,
        answers: Path | None = None,
    ) -> Laptop:
        """A laptop's Envoy; `certificate` is another session's name for an impostor."""
        name = name or f"laptop-{session}"
        directory = self._directory / name
        directory.mkdir()
        settings = LaptopSettings(
            session=session,
            identity=self.identity(name, dns=(certificate or session,)),
            agents=tuple(agent.address for agent in agents),
            agent_identity=AGENT_ID,
            egress_port=free_port(),
            gateway_port=free_port(),
            directory=directory,
            tunnels=tunnels,
            inject=inject,
            answers=answers,
        )
        write_app(settings, app)
        write_tunnels(settings, {})
        laptop = Laptop(settings=settings, lines=[])
        laptop.envoy = await self._start(name, laptop_bootstrap(settings), laptop.on_line)
        return laptop

    async def _start(
        self,
        name: str,
        bootstrap: Config,
        on_line: Callable[[bytes], None],
        on_exit: Callable[[int], None] = lambda code: None,
    ) -> ManagedEnvoy:
        envoy = ManagedEnvoy(name, bootstrap, self._directory / name, on_line=on_line, on_exit=on_exit)
        await envoy.start()
        # A fixture begins and ends in different tasks, where a TaskGroup can't span the two.
        running = asyncio.get_running_loop().create_task(envoy.run())
        self._stack.push_async_callback(asyncio.wait, [running])
        self._stack.push_async_callback(envoy.stop)
        return envoy


def from_file(bootstrap: Config, path: Path) -> Config:
    """The bootstrap with what it discovers by ADS read from a file."""
    write_private(path, json.dumps({"resources": [egress_policy()]}).encode())
    source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
    ads = json.dumps({"ads": {}, "resource_api_version": "V3"})
    changed: Config = json.loads(json.dumps(bootstrap).replace(ads, json.dumps(source)))
    assert changed != bootstrap
    return changed


@asynccontextmanager
async def tunnels(directory: Path) -> AsyncIterator[Tunnels]:
    """An empty set-up in a directory."""
    async with AsyncExitStack() as stack:
        yield Tunnels(directory, stack)
