"""The mesh that chaos is made in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bench.chaos.laptop import PATIENCE, ROOT, Laptop, envoy_of
from bench.chaos.load import PAUSE_SECONDS, Load
from bench.chaos.records import BYSTANDER, CLUSTER, LAPTOP, Kind
from hairpin.api import read_developer
from hairpin.errors import HairpinError
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.ports import free_ports
from hairpin.mesh.state import MeshFolder
from hairpin.mesh.supervisor import MeshSupervisor
from hairpin.model.session import Phase
from local_proxy.session_client import SessionClient

LOOK_SECONDS = 0.01
STEADY_SECONDS = 0.7
"""The laptop is back when it has answered everything for so long."""
STEADY_ANSWERS = 20


class ChaosMesh:
    """Entry, target, control plane and agent; a laptop that is struck, and another one."""

    def __init__(self, supervisor: MeshSupervisor, journal: Path, pause: float) -> None:
        self.supervisor = supervisor
        self._pause = pause
        self.journal = journal
        self.agent = supervisor.mesh.agents[0]
        self.laptop = Laptop(supervisor.folder, "alice", LAPTOP, journal)
        self.bystander = Laptop(supervisor.folder, "bob", BYSTANDER, journal)

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

    async def sessions_active(self) -> bool:
        """Whether the control plane says that both sessions are served."""
        try:
            async with SessionClient(read_developer(self.supervisor.folder.developer("alice"))) as client:
                phases = [session.status.phase for session in await client.list()]
                return len(phases) > 1 and set(phases) == {Phase.ACTIVE}
        except HairpinError:
            return False

    # Load

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Load on the entry."""
        address = self.supervisor.mesh.entry.address
        load = Load(
            address.host,
            address.port,
            service="target",
            environment=self.laptop.user,
            bystander=self.bystander.user,
            pause=self._pause,
        )
        async with load.running():
            yield load

    async def laptop_answers(self, load: Load, what: str) -> None:
        """Wait until each laptop, and it alone, has answered its GETs for some time.

        Raises:
            HairpinError: one does not.
        """
        for kind, laptop in ((Kind.GET, self.laptop), (Kind.BYSTANDER, self.bystander)):
            await self._answers(load, kind, laptop, what)

    async def _answers(self, load: Load, kind: Kind, laptop: Laptop, what: str) -> None:
        begin = asyncio.get_running_loop().time()

        def steady(_: object) -> bool:
            now = asyncio.get_running_loop().time()
            answers = 0
            for record in reversed(load.records):
                if record.kind is not kind or record.sent < begin:
                    continue
                if record.refused or record.who != laptop.name:
                    return False
                answers += 1
                if record.sent < now - STEADY_SECONDS and answers >= STEADY_ANSWERS:
                    return True
            return False

        if not await load.until(steady, PATIENCE):
            raise HairpinError(
                f"{what}: {laptop.user}'s laptop does not answer; see {self.supervisor.folder.root / 'logs'}"
            )


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


async def so(condition: Callable[[], Awaitable[bool]], what: str) -> float:
    """Wait until something is so, and return the event loop's time.

    Raises:
        HairpinError: it does not become so.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise HairpinError(f"never so: {what}") from None
    return asyncio.get_running_loop().time()


async def dead(process: psutil.Process) -> float:
    """Wait for a process's end, and return the event loop's time."""

    async def ended() -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return await so(ended, f"process {process.pid} ends")


def _process(pid: int | None) -> psutil.Process:
    if pid is None:
        raise HairpinError("a process that shall be killed does not run")
    return psutil.Process(pid)
