"""The mesh under load: a caller, a target with steering in its sidecar, the same without, and laptops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import psutil

from hairpin.errors import HairpinError
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.state import MeshFolder
from hairpin.mesh.supervisor import MeshSupervisor
from hairpin.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[1]
APP = ["{python}", "-m", "bench.app", "{port}"]
PATIENCE = 30.0


class BenchMesh:
    """Addresses and processes."""

    def __init__(self, supervisor: MeshSupervisor) -> None:
        self.supervisor = supervisor
        self.mesh = supervisor.mesh

    @property
    def caller(self) -> str:
        """The URL of the caller's sidecar: the Host header says which service is called."""
        workload = self.mesh.workload("caller")
        assert workload is not None  # it is in the document below
        return f"http://{workload.outbound}/"

    @property
    def direct(self) -> str:
        """The URL of the target's application itself."""
        workload = self.mesh.workload("target")
        assert workload is not None  # likewise
        return f"http://{workload.ports[0].app}/"

    def command(self, user: str, *arguments: str) -> list[str]:
        """`hairpin run` as this developer."""
        config = str(self.supervisor.folder.developer(user))
        return [sys.executable, "-m", "hairpin", "run", "--config", config, *arguments]

    async def who(self, environment: str | None, host: str = "target") -> str:
        """Who answers a request of this environment."""
        headers = {"Host": host, **({"x-env": environment} if environment else {})}
        async with aiohttp.ClientSession() as client, client.get(self.caller, headers=headers) as response:
            return response.headers.get("x-who", f"status {response.status}")

    async def answered_by(self, who: str, environment: str | None) -> None:
        """Wait until requests of this environment are answered by `who`.

        Raises:
            HairpinError: they were not.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.who(environment) != who:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise HairpinError(f"requests of {environment} are not answered by {who}") from None

    @contextlib.asynccontextmanager
    async def laptop(self, user: str, environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """`hairpin run` of the app, steered."""
        port = next(free_ports())
        app = [sys.executable, "-m", "bench.app", str(port), f"laptop-{user}"]
        arguments = ["--env", environment, "--target", "target", "--port", str(port), "--quiet", "--", *app]
        process = await asyncio.create_subprocess_exec(
            *self.command(user, *arguments), cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        try:
            await self.answered_by(f"laptop-{user}", environment)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), PATIENCE)


@contextlib.asynccontextmanager
async def bench_mesh() -> AsyncIterator[BenchMesh]:
    """The mesh, up."""
    document = {
        "name": "bench",
        "entry": {"service": "caller"},
        "services": {
            "caller": {"command": [*APP, "caller"]},
            "target": {"command": [*APP, "cluster"]},
            "plain": {"command": [*APP, "plain"], "steerable": False},
            "idle": {"command": [*APP, "idle"]},
        },
        "developers": ["alice", "bob", "carol", "dave"],
    }
    with tempfile.TemporaryDirectory(prefix="hairpin-bench-") as name:
        mesh = mesh_from_document(document, free_ports())
        supervisor = MeshSupervisor(mesh, MeshFolder(Path(name)), ROOT)
        async with supervisor.running():
            yield BenchMesh(supervisor)


def cpu_seconds() -> float:
    """CPU that this process's descendants have used, wrk's apart: Envoys, Pythons, applications."""
    total = 0.0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name() != "wrk":
                times = process.cpu_times()
                total += times.user + times.system
    return total
