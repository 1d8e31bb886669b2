"""The embedded mesh, for chaos."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from agent.reports import GAUGES
from bench.chaos.laptop import ROOT, Laptop, envoy_of, forever, run_flags
from bench.chaos.load import PAUSE_SECONDS, Streams
from bench.chaos.records import BYSTANDER, CLUSTER, LAPTOP
from bench.chaos.struck import StruckMesh
from hairpin.api import read_developer
from hairpin.envoy.admin import AdminClient, admin_socket
from hairpin.envoy.leash import leashed, suitable_leash
from hairpin.errors import HairpinError
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.state import MeshFolder
from hairpin.mesh.supervisor import MeshSupervisor
from hairpin.model.session import Phase
from hairpin.ports import free_ports
from local_proxy.session_client import SessionClient


class ChaosMesh(StruckMesh):
    """The embedded mesh: entry, target, control plane and agent."""

    def __init__(self, supervisor: MeshSupervisor, journal: Path, pause: float) -> None:
        laptop, bystander = (
            Laptop(
                user,
                name,
                _hairpin_run(supervisor.folder, user, name, journal),
                supervisor.folder.log(f"hairpin-run-{user}"),
            )
            for user, name in (("alice", LAPTOP), ("bob", BYSTANDER))
        )
        super().__init__(laptop, bystander, journal, pause)
        self.supervisor = supervisor
        self.agent = supervisor.mesh.agents[0]

    # Processes

    @property
    def control_plane(self) -> psutil.Process:
        """xds_server."""
        return _process(self.supervisor.control_plane.pid)

    @property
    def agent_process(self) -> psutil.Process:
        """The agent: the program, not its Envoy."""
        return _process(self.supervisor.agents[self.agent.name].pid)

    @property
    def agent_envoy(self) -> psutil.Process:
        """The agent's Envoy."""
        return envoy_of(self.agent_process)

    @property
    def agent_sidecar(self) -> psutil.Process:
        """The Envoy in front of the agent."""
        return _process(self.supervisor.proxies[self.agent.name].pid)

    async def agent_ready(self) -> bool:
        """Whether the agent says that it is ready, as a kubelet would ask."""
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(self.agent.ready.host, self.agent.ready.port)
                writer.write(b"GET /ready HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n")
                status = await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            return False
        return b" 200 " in status

    async def tunnels(self) -> int:
        """How many sessions have a tunnel, by the agent's Envoy."""
        gauges = await AdminClient(admin_socket(self.supervisor.folder.run(self.agent.name) / "envoy")).stats(GAUGES)
        return sum(count > 0 for count in gauges.values())

    async def sessions_active(self) -> bool:
        """Whether the control plane says that both sessions are served."""
        try:
            async with SessionClient(read_developer(self.supervisor.folder.developer("alice"))) as client:
                phases = [session.status.phase for session in await client.list()]
                return len(phases) > 1 and set(phases) == {Phase.ACTIVE}
        except HairpinError:
            return False

    async def connect(self) -> Streams:
        address = self.supervisor.mesh.entry.address
        return await asyncio.open_connection(address.host, address.port)


@asynccontextmanager
async def chaos_mesh(folder: Path, *, replicas: int = 1, pause: float = PAUSE_SECONDS) -> AsyncIterator[ChaosMesh]:
    """The mesh, up, with laptops that have been started.

    Args:
        folder: for its files.
        replicas: of the agent; the first is the one that is struck.
        pause: seconds between two requests of a connection.
    """
    journal = folder / "journal"
    command = ["{python}", "-m", "bench.chaos.app", "--name", CLUSTER, "--port", "{port}", "--journal", str(journal)]
    document = {
        "name": "chaos",
        "services": {"target": {"command": command}},
        "agents": {"replicas": replicas},
        "developers": ["alice", "bob"],
    }
    mesh = mesh_from_document(document, free_ports())
    async with MeshSupervisor(mesh, MeshFolder(folder), ROOT).running() as supervisor:
        chaos = ChaosMesh(supervisor, journal, pause)
        try:
            for laptop in (chaos.laptop, chaos.bystander):
                await laptop.start()
            yield chaos
        finally:
            for laptop in (chaos.laptop, chaos.bystander):
                await laptop.end()


def _hairpin_run(folder: MeshFolder, user: str, name: str, journal: Path) -> list[str]:
    port = next(free_ports())
    flags = ["--config", str(folder.developer(user)), *run_flags(user, port)]
    run = [sys.executable, "-m", "hairpin", "run", *flags, "--", *forever(sys.executable, name, port, journal)]
    return leashed(run) if suitable_leash() == "signal" else run


def _process(pid: int | None) -> psutil.Process:
    if pid is None:
        raise HairpinError("a process that shall be killed does not run")
    return psutil.Process(pid)
