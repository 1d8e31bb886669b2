"""A developer's `hairpin run`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil

from hairpin.envoy.leash import leashed, suitable_leash
from hairpin.errors import HairpinError
from hairpin.mesh.ports import free_ports
from hairpin.mesh.state import MeshFolder

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds that anything may take to become so."""
_FOREVER = 'while :; do "$@"; done'


class Laptop:
    """`hairpin run` of the application, which can be killed and started again.

    Args:
        folder: the mesh's.
        user: whose it is, and the environment's name.
        name: who its application says it is.
        journal: where its application writes down what it executes.
    """

    def __init__(self, folder: MeshFolder, user: str, name: str, journal: Path) -> None:
        self.user = user
        self.name = name
        self._folder = folder
        self._journal = journal
        self._port = next(free_ports())
        self._cli: asyncio.subprocess.Process | None = None

    @property
    def cli(self) -> psutil.Process:
        """`hairpin run`."""
        assert self._cli is not None
        return psutil.Process(self._cli.pid)

    @property
    def envoy(self) -> psutil.Process:
        """The laptop's Envoy."""
        return envoy_of(self.cli)

    @property
    def process(self) -> psutil.Process:
        """The process that `hairpin run` serves; a shell around it starts it again when it ends."""
        for process in self.cli.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() != "sh" and "bench.chaos.app" in process.cmdline():
                    return process
        raise HairpinError("the developer's process does not run")

    async def start(self) -> None:
        """`hairpin run`; returns when the process runs, before anything is steered."""
        app = [sys.executable, "-m", "bench.chaos.app", "--name", self.name]
        app += ["--port", str(self._port), "--journal", str(self._journal)]
        flags = ["--env", self.user, "--target", "target", "--port", str(self._port), "--no-requests"]
        config = self._folder.developer(self.user)
        run = [sys.executable, "-m", "hairpin", "run", "--config", str(config), *flags]
        run += ["--", "sh", "-c", _FOREVER, "sh", *app]
        with self._folder.log(f"hairpin-run-{self.user}").open("ab") as log:
            self._cli = await asyncio.create_subprocess_exec(
                *(leashed(run) if suitable_leash() == "signal" else run),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    async def ended(self) -> None:
        """Wait for the end of a `hairpin run` that was killed."""
        if self._cli is not None:
            await self._cli.wait()

    async def end(self) -> None:
        """End `hairpin run`, if it runs, as a terminal's Ctrl-C does, and wait for its end."""
        cli = self._cli
        if cli is None or cli.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(cli.pid, signal.SIGINT)
        try:
            await asyncio.wait_for(cli.wait(), PATIENCE)
        except TimeoutError:
            cli.kill()
            await cli.wait()


def envoy_of(parent: psutil.Process) -> psutil.Process:
    for child in parent.children():
        with contextlib.suppress(psutil.Error):
            if child.name() == "envoy":
                return child
    raise HairpinError(f"process {parent.pid} has no Envoy")
