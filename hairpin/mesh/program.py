"""A program of the mesh (the control plane, an agent, a service) as a supervised child, its output in a log file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.envoy.leash import leashed, suitable_leash
from hairpin.errors import HairpinError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 0.1, 5.0
"""Seconds before the second restart in a row, and the most that doubling makes of them. The first comes at once."""
HEALTHY_AFTER = 10.0
"""Seconds after which a program that ended is started again at once."""


class Program:
    """One program, started again when it ends, until it is stopped.

    Args:
        name: for messages and the log file.
        command: what to run.
        log_file: where its output goes, appended.
        environment: its environment.
        directory: where it runs.
        grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_file: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        grace: float = 10.0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_file = log_file
        self._environment = dict(os.environ if environment is None else environment)
        self._directory = directory
        self._grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    def last_words(self) -> str:
        """The last line of its log, and where the others are."""
        lines = self.log_file.read_text(errors="replace").split("\n") if self.log_file.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{last} ({self.log_file})"

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def check(self) -> None:
        """Find the command.

        Raises:
            HairpinError: there is no such program.
        """
        name = self.command[0]
        # A relative path is meant from the program's own folder, as the system call takes it.
        where = str((self._directory or Path()) / name) if "/" in name else name
        if shutil.which(where, path=self._environment.get("PATH")) is None:
            raise HairpinError(
                f"{self.name} can't be started: {' '.join(self.command)}: there is no program {name!r}; mend its `command`"
            )

    async def run(self) -> None:
        """Keep it running until cancelled, then end it.

        Raises:
            HairpinError: the command can't be started at all.
        """
        delay = 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                started = loop.time()
                code = await self._once()
                delay = 0.0 if loop.time() - started > HEALTHY_AFTER else delay
                log.warning("%s ended with %s; started again in %.1f s (%s)", self.name, code, delay, self.log_file)
                await asyncio.sleep(delay)
                delay = min(delay * 2 or FIRST_DELAY, LAST_DELAY)
                self.restarts += 1
        finally:
            await self._end()

    async def _once(self) -> int:
        leash = suitable_leash()
        with self.log_file.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *leashed(self.command, leash),
                    stdin=asyncio.subprocess.PIPE if leash == "pipe" else asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self._environment,
                    cwd=self._directory,
                    start_new_session=True,  # the terminal's Ctrl-C is the supervisor's
                )
            except OSError as error:
                raise HairpinError(
                    f"{self.name} can't be started: {' '.join(self.command)}: {error.strerror}"
                ) from None
        code = await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()  # ends the leash's watcher
        return code

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._grace):
                await process.wait()
        except TimeoutError:
            log.warning("%s did not end within %g s of SIGTERM: killed", self.name, self._grace)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
