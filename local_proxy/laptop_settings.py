"""What the laptop's Envoy depends on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hairpin.envoy.config import Identity
from hairpin.model.environment import Environment
from hairpin.model.session import AgentAddress, EgressAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class LaptopSettings:
    """What the laptop's Envoy depends on."""

    session: str
    """The session's id: the node id of its tunnels and the only SAN of its certificate."""
    identity: Identity
    agents: tuple[AgentAddress, ...]
    agent_identity: str
    """The URI SAN that the agent's certificate must bear, at both handshakes."""
    egress: tuple[EgressAddress, ...] = ()
    """Where the process's connections leave; empty: at `agents`."""
    egress_identity: str = ""
    """The URI SAN of those; empty: `agent_identity`."""
    egress_port: int
    """The HTTP proxy's, on loopback."""
    gateway_port: int | None = None
    """The gateway's, on loopback; None: there is none."""
    answers: Path | None = None
    """Where it is said at once what became of each connection through the gateway: a Unix socket; None: nowhere."""
    inject: Environment | None = None
    """The environment whose header is added to the process's requests; None: nothing is."""
    directory: Path
    """Where the files lie that change while Envoy runs."""
    tunnels: bool = True
    """False in mode `egress`: nothing is taken over."""

    @property
    def app_file(self) -> Path:
        """The clusters, `app` first, as Envoy's CDS reads them."""
        return self.directory / "app.json"

    @property
    def questions(self) -> Path:
        """The Unix socket for requests to a replica of the agent itself, which AGENT_HEADER names."""
        return self.directory / "ask.sock"

    @property
    def tunnels_file(self) -> Path:
        """The tunnels' listeners, as Envoy's LDS reads them."""
        return self.directory / "tunnels.json"
