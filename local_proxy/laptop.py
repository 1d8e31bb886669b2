"""The laptop's end of one session: its identity, and its Envoy with the tunnels and the HTTP proxy."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from hairpin.envoy.config import Identity, write_identity
from hairpin.envoy.process import ManagedEnvoy
from hairpin.errors import HairpinError
from hairpin.headers import REFUSED_HEADER
from hairpin.model.environment import Environment
from hairpin.model.session import AgentAddress, Session
from local_proxy.bootstrap import cluster_name, laptop_bootstrap, write_app, write_tunnels
from local_proxy.laptop_settings import LaptopSettings
from local_proxy.reach import Replicas

DRAIN_SECONDS = 3.0
"""How long requests in flight have to finish when the session ends."""
RESTART_SECONDS = 1.5
"""How long Envoy may take to be restarted and make its tunnels."""
TAKEN_SECONDS = 2.0
"""How long Envoy may take to see a changed file; it is told by the kernel, within milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSeen:
    """A request that the command made through the HTTP proxy."""

    method: str
    authority: str
    status: int
    duration_ms: int
    refused: str
    """Why the agent refused it, if it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSeen:
    """A connection that the command made through the gateway, at its end."""

    authority: str
    """What was connected to, as the agent was told."""
    name: str
    """The name that the program had looked up for it, if any."""
    sent: int
    """Bytes of the program's."""
    received: int
    duration_ms: int
    refused: str
    """Why it led nowhere; empty if it did."""


class Laptop:
    """The Envoy of one session, up inside `running`.

    Args:
        session: as the control plane answered, with its certificate.
        replicas: where its agents are.
        key: the private key of its certificate, in PEM.
        directory: a private directory, for this session alone.
        egress_port: the HTTP proxy's port.
        gateway_port: the gateway's port; None: there is none.
        answers: where it is said what became of connections through it, see `LaptopSettings`.
        inject: the environment whose header is added to the command's requests; None: nothing is.
        app: where the process listens, if it does.
        on_egress: called with each request of the command's.
        on_connection: called with each connection of the command's through the gateway.
        on_problem: called with what Envoy says of a tunnel that can't be made.
    """

    def __init__(
        self,
        session: Session,
        replicas: Replicas,
        key: str,
        directory: Path,
        *,
        egress_port: int,
        gateway_port: int | None = None,
        answers: Path | None = None,
        inject: Environment | None = None,
        app: tuple[str, int] | None = None,
        on_egress: Callable[[EgressSeen], None],
        on_problem: Callable[[str, str], None],
        on_connection: Callable[[ConnectionSeen], None] = lambda _: None,
    ) -> None:
        self._on_egress = on_egress
        self._on_connection = on_connection
        self._on_problem = on_problem
        self._generations: dict[str, int] = {}
        self._ended = -math.inf
        self._settings = LaptopSettings(
            session=session.id,
            identity=Identity(directory / "identity"),
            agents=replicas.agents,
            agent_identity=session.status.agent_identity,
            egress=replicas.egress,
            egress_identity=session.status.egress_identity,
            egress_port=egress_port,
            gateway_port=gateway_port,
            answers=answers,
            inject=inject,
            directory=directory,
        )
        self._app = app
        self.renew(session, key)
        write_app(self._settings, app)
        write_tunnels(self._settings, self._generations)
        self.envoy = ManagedEnvoy(
            "the laptop's Envoy",
            laptop_bootstrap(self._settings),
            directory / "envoy",
            on_line=self._on_line,
            on_exit=self._on_exit,
            drain_seconds=DRAIN_SECONDS,
        )

    def renew(self, session: Session, key: str) -> None:
        """Put the session's certificate in place; a running Envoy takes it for its next handshakes."""
        status = session.status
        write_identity(
            self._settings.identity,
            key=key.encode(),
            chain=status.certificate.encode(),
            authority=status.certificate_authority.encode(),
        )

    @property
    def questions(self) -> Path:
        """The Unix socket that leads to the agents themselves."""
        return self._settings.questions

    def address(self, agent: str) -> AgentAddress | None:
        """Where a replica is; None if it is none of this session's any more."""
        return next((address for address in self._settings.agents if address.name == agent), None)

    def redial(self, agent: str) -> None:
        """Have a new tunnel made to a replica, now. Envoy itself looks for a lost one every ten seconds."""
        self._generations[agent] = self._generations.get(agent, 0) + 1
        write_tunnels(self._settings, self._generations)

    async def move(self, replicas: Replicas) -> None:
        """Have tunnels to these replicas, and the way out there: some may have come, or gone."""
        before = self._settings
        self._settings = dataclasses.replace(before, agents=replicas.agents, egress=replicas.egress)
        if self._settings == before:
            return
        write_app(self._settings, self._app)
        for agent in set(replicas.agents) - set(before.agents):
            await self._taken(f"{cluster_name(agent)}::{agent.host}:{agent.tunnel_port}::")
        # A tunnel whose cluster is not there yet would be tried again in ten seconds only.
        write_tunnels(self._settings, self._generations)

    async def serve(self, host: str, port: int) -> None:
        """Send requests to where the process listens; returns when Envoy has taken the address."""
        self._app = (host, port)
        write_app(self._settings, self._app)
        await self._taken(f"app::{f'[{host}]' if ':' in host else host}:{port}::")

    async def _taken(self, address: str) -> None:
        # If it does not come, requests are refused here and answered by the cluster: nothing is lost by going on.
        with contextlib.suppress(TimeoutError, HairpinError):
            async with asyncio.timeout(TAKEN_SECONDS):
                while address not in await self.envoy.admin.get("/clusters"):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)

    def dialling(self) -> bool:
        """Whether Envoy has just been restarted: then it makes its tunnels without being told."""
        return time.monotonic() - self._ended < RESTART_SECONDS

    def _on_exit(self, code: int) -> None:
        del code
        self._ended = time.monotonic()

    def _on_line(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict):
            return
        if "egress" in entry:
            self._on_egress(_egress(entry))
        elif "gateway" in entry:
            self._on_connection(connection_seen(entry))
        elif entry.get("error") not in (None, "", "-"):
            self._on_problem(str(entry.get("cluster", "")).removeprefix("agent/"), str(entry["error"]))


def _egress(entry: dict[str, Any]) -> EgressSeen:
    return EgressSeen(
        method=str(entry.get("method") or ""),
        authority=str(entry.get("egress") or ""),
        status=int(entry.get("status") or 0),
        duration_ms=int(entry.get("durationMs") or 0),
        refused=_text(entry.get("refused")),
    )


def connection_seen(entry: dict[str, Any]) -> ConnectionSeen:
    """A line of the gateway's access log."""
    answered = entry.get("answer")
    headers = answered.get("headers") if isinstance(answered, dict) else None
    answer = {
        str(header.get("key")): str(header.get("value", "")) for header in headers or [] if isinstance(header, dict)
    }
    return ConnectionSeen(
        authority=_text(entry.get("gateway")),
        name=_text(entry.get("name")),
        sent=int(entry.get("sent") or 0),
        received=int(entry.get("received") or 0),
        duration_ms=int(entry.get("durationMs") or 0),
        refused=_why(answer, _text(entry.get("flags"))),
    )


def _why(answer: dict[str, str], flags: str) -> str:
    status = answer.get(":status", "")
    if status == "200":
        return ""
    if reason := answer.get(REFUSED_HEADER):
        return reason
    if status == "403":
        return "the agent does not know the session"
    if status:
        return f"the agent could not connect ({status})"
    return f"the agent is not reached ({flags})" if flags else ""


def _text(value: Any) -> str:
    return "" if value in (None, "-") else str(value)


def certificate_end(pem: str) -> datetime:
    """Until when a certificate is valid."""
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
