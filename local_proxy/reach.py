"""How the agent's replicas are reached: at the addresses that the control plane gives, or through the API server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from hairpin.errors import HairpinError
from hairpin.kubernetes.api import Api
from hairpin.kubernetes.portforward import PortForward, Right
from hairpin.model.session import AgentAddress, EgressAddress, Session


@dataclass(frozen=True, slots=True)
class Replicas:
    """Where the replicas are, for the laptop's Envoy: each has a host."""

    agents: tuple[AgentAddress, ...] = ()
    egress: tuple[EgressAddress, ...] = ()


class Reach(Protocol):
    """The way to the replicas of a session's agents."""

    look_seconds: float
    """How long to wait between two looks whether a replica is there."""
    again_seconds: float | None
    """After what time to ask again, though the session is the same; None: never."""

    async def replicas(self, session: Session) -> Replicas:
        """Where they are: hosts are IP addresses. The same for a replica whenever it is asked for, if that can be."""
        ...


class Direct:
    """At the addresses that the control plane gives."""

    look_seconds = 0.05
    again_seconds: float | None = None

    async def replicas(self, session: Session) -> Replicas:
        """As the session has them."""
        return Replicas(session.status.agents, session.status.egress)


class Forwarder(Protocol):
    """A listener here that leads to a pod's port."""

    async def listen(self) -> tuple[str, int]:
        """Begin; where."""
        ...

    def close(self) -> None:
        """End."""
        ...


class PortForwards:
    """By port-forward, where the control plane gives no host.

    The listeners stay until the end: a pod that is replaced has its name again.

    Args:
        make: makes the listener for a pod's port.
    """

    look_seconds = 0.5
    again_seconds: float | None = None

    def __init__(self, make: Callable[[str, int], Forwarder]) -> None:
        self._make = make
        self._open: dict[tuple[str, int], tuple[Forwarder, tuple[str, int]]] = {}
        self._lock = asyncio.Lock()

    async def replicas(self, session: Session) -> Replicas:
        """The replicas, those without a host on loopback."""
        async with self._lock:
            return Replicas(
                tuple([await self._agent(agent) for agent in session.status.agents]),
                tuple([await self._egress(egress) for egress in session.status.egress]),
            )

    async def _agent(self, agent: AgentAddress) -> AgentAddress:
        if agent.host:
            return agent
        host, tunnel = await self._port(agent.name, agent.tunnel_port)
        _, egress = await self._port(agent.name, agent.egress_port)
        return dataclasses.replace(agent, host=host, tunnel_port=tunnel, egress_port=egress)

    async def _egress(self, egress: EgressAddress) -> EgressAddress:
        if egress.host:
            return egress
        host, port = await self._port(egress.name, egress.port)
        return dataclasses.replace(egress, host=host, port=port)

    async def _port(self, pod: str, port: int) -> tuple[str, int]:
        if (pod, port) not in self._open:
            forwarder = self._make(pod, port)
            self._open[pod, port] = forwarder, await forwarder.listen()
        return self._open[pod, port][1]

    def close(self) -> None:
        """End all."""
        for forwarder, _ in self._open.values():
            forwarder.close()


@contextlib.asynccontextmanager
async def port_forwards(
    api: Api, namespace: str, on_error: Callable[[HairpinError], None]
) -> AsyncIterator[PortForwards]:
    """Port-forwards to pods of a namespace, by hairpin itself, until the context ends."""
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    right = Right()
    forwards = PortForwards(
        lambda pod, port: PortForward(api, namespace, pod, port, tasks, on_error=on_error, right=right)
    )
    try:
        yield forwards
    finally:
        forwards.close()
        # What the body raised is the body's, and no member of a group.
        await tasks.__aexit__(None, None, None)


async def reachable(agent: AgentAddress, seconds: float = 2.0) -> bool:
    """Whether a replica of the agent answers where it takes tunnels.

    That a connection is taken tells nothing: a port-forward takes all. An agent speaks TLS, so it is greeted, and must answer.
    """
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(agent.host, agent.tunnel_port)
            try:
                writer.write(_client_hello())
                return bool(await reader.read(1))
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _client_hello() -> bytes:
    """The first words of TLS. Who answers is of no matter here: Envoy checks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    words = ssl.MemoryBIO()
    greeting = context.wrap_bio(ssl.MemoryBIO(), words)
    with contextlib.suppress(ssl.SSLWantReadError):
        greeting.do_handshake()
    return words.read()
