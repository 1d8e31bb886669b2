"""The mesh that chaos is made in, and a developer's `hairpin run` in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bench.chaos.load import Load
from bench.chaos.records import CLUSTER, LAPTOP, Kind
from hairpin.api import read_developer
from hairpin.errors import HairpinError
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.ports import free_ports
from hairpin.mesh.state import MeshFolder
from hairpin.mesh.supervisor import MeshSupervisor
from hairpin.model.session import Phase
from local_proxy.session_client import SessionClient

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds that anything may take to become so."""
LOOK_SECONDS = 0.01
STEADY_SECONDS = 0.7
"""The laptop is back when it has answered everything for so long."""
STEADY_ANSWERS = 20
_FOREVER = 'while :; do "$@"; done'


class ChaosMesh:
    """Entry, target, control plane and agent; and one laptop, which can be killed and started again."""

    def __init__(self, supervisor: MeshSupervisor, journal: Path, port: int) -> None:
        self.supervisor = supervisor
        self.journal = journal
        self.agent = supervisor.mesh.agents[0]
        self._port = port
        self._cli: asyncio.subprocess.Process | None = None

    # Processes

    @property
    def cli(self) -> psutil.Process:
        """`hairpin run`."""
        assert self._cli is not None
        return psutil.Process(self._cli.pid)

    @property
    def laptop_envoy(self) -> psutil.Process:
        """The laptop's Envoy."""
        return _envoy_of(self.cli)

    @property
    def developers_process(self) -> psutil.Process:
        """The process that `hairpin run` serves; a shell around it starts it again when it ends."""
        for process in self.cli.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() != "sh" and "bench.chaos.app" in process.cmdline():
                    return process
        raise HairpinError("the developer's process does not run")

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
        return _envoy_of(self.agent_process)

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

    async def session_active(self) -> bool:
        """Whether the control plane says that a session is served."""
        try:
            async with SessionClient(read_developer(self.supervisor.folder.developer("alice"))) as client:
                return any(session.status.phase is Phase.ACTIVE for session in await client.list())
        except HairpinError:
            return False

    # The laptop

    async def start_laptop(self) -> None:
        """`hairpin run`; returns when the process runs, before anything is steered."""
        app = [sys.executable, "-m", "bench.chaos.app", "--name", LAPTOP]
        app += ["--port", str(self._port), "--journal", str(self.journal)]
        flags = ["--env", "alice", "--target", "target", "--port", str(self._port), "--no-requests"]
        config = self.supervisor.folder.developer("alice")
        with self.supervisor.folder.log("hairpin-run").open("ab") as log:
            self._cli = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hairpin", "run", "--config", str(config), *flags, "--"),
                *("sh", "-c", _FOREVER, "sh", *app),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    async def end_laptop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End `hairpin run`, if it runs, and wait for its end."""
        cli = self._cli
        if cli is None or cli.returncode is not None:
            return
        cli.send_signal(number)
        try:
            await asyncio.wait_for(cli.wait(), PATIENCE)
        except TimeoutError:
            cli.kill()
            await cli.wait()

    # Load

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Load on the entry."""
        address = self.supervisor.mesh.entry.address
        load = Load(address.host, address.port, service="target", environment="alice")
        async with load.running():
            yield load

    async def laptop_answers(self, load: Load, what: str) -> None:
        """Wait until the laptop, and it alone, has answered matched GETs for some time.

        Raises:
            HairpinError: it does not.
        """
        begin = asyncio.get_running_loop().time()

        def steady(_: object) -> bool:
            now = asyncio.get_running_loop().time()
            answers = 0
            for record in reversed(load.records):
                if record.kind is not Kind.GET or record.sent < begin:
                    continue
                if record.refused or record.who != LAPTOP:
                    return False
                answers += 1
                if record.sent < now - STEADY_SECONDS and answers >= STEADY_ANSWERS:
                    return True
            return False

        if not await load.until(steady, PATIENCE):
            raise HairpinError(f"{what}: the laptop does not answer; see {self.supervisor.folder.root / 'logs'}")


@asynccontextmanager
async def chaos_mesh(folder: Path) -> AsyncIterator[ChaosMesh]:
    """The mesh, up, with a laptop that has been started."""
    journal = folder / "journal"
    command = ["{python}", "-m", "bench.chaos.app", "--name", CLUSTER, "--port", "{port}", "--journal", str(journal)]
    document = {"name": "chaos", "services": {"target": {"command": command}}, "developers": ["alice"]}
    mesh = mesh_from_document(document, free_ports())
    async with MeshSupervisor(mesh, MeshFolder(folder), ROOT).running() as supervisor:
        chaos = ChaosMesh(supervisor, journal, next(free_ports()))
        await chaos.start_laptop()
        try:
            yield chaos
        finally:
            await chaos.end_laptop()


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


def _envoy_of(parent: psutil.Process) -> psutil.Process:
    for child in parent.children():
        with contextlib.suppress(psutil.Error):
            if child.name() == "envoy":
                return child
    raise HairpinError(f"process {parent.pid} has no Envoy")
