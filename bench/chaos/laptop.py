"""A developer's `hairpin run`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

from hairpin.errors import HairpinError

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds that anything may take to become so."""
_FOREVER = 'while :; do "$@"; done'


class Laptop:
    """`hairpin run` of the application, which can be killed and started again.

    Args:
        user: whose it is, and the environment's name.
        name: who its application says it is.
        command: what starts it; see `run_flags` and `forever`.
        log: where its output goes.
        enters: the command is one that enters namespaces, and waits for `hairpin run` as its child.
    """

    def __init__(self, user: str, name: str, command: Sequence[str], log: Path, *, enters: bool = False) -> None:
        self.user = user
        self.name = name
        self._command = command
        self._log = log
        self._enters = enters
        self._cli: asyncio.subprocess.Process | None = None

    @property
    def cli(self) -> psutil.Process:
        """`hairpin run`."""
        assert self._cli is not None
        started = psutil.Process(self._cli.pid)
        if not self._enters:
            return started
        if children := started.children():
            return children[0]
        raise HairpinError("hairpin run does not run")

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
        with self._log.open("ab") as log:
            self._cli = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def said(self, lines: int = 30) -> str:
        """The end of what it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    async def ended(self) -> None:
        """Wait for the end of a `hairpin run` that was killed."""
        if self._cli is not None:
            await self._cli.wait()

    async def end(self) -> None:
        """End `hairpin run`, if it runs, as a terminal's Ctrl-C does, and wait for its end."""
        cli = self._cli
        if cli is None or cli.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, HairpinError):
            if self._enters:
                # As the terminal does: the command's shell would wait for its child, which has heard of nothing.
                for process in [self.cli, *self.cli.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        process.send_signal(signal.SIGINT)
            else:
                os.killpg(cli.pid, signal.SIGINT)
        try:
            await asyncio.wait_for(cli.wait(), PATIENCE)
        except TimeoutError:
            cli.kill()
            await cli.wait()


def run_flags(user: str, port: int) -> list[str]:
    """The flags of `hairpin run` that don't depend on the mesh."""
    return ["--env", user, "--target", "target", "--port", str(port), "--no-requests"]


def forever(python: str, name: str, port: int, journal: Path) -> list[str]:
    """The application, started again whenever it ends."""
    app = [python, "-m", "bench.chaos.app", "--name", name, "--port", str(port), "--journal", str(journal)]
    return ["sh", "-c", _FOREVER, "sh", *app]


def envoy_of(parent: psutil.Process) -> psutil.Process:
    for child in parent.children():
        with contextlib.suppress(psutil.Error):
            if child.name() == "envoy":
                return child
    raise HairpinError(f"process {parent.pid} has no Envoy")
