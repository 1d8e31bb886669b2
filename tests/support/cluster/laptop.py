"""A developer's machine: a network namespace without a sidecar, where programs run as an ordinary user."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support.cluster.host import LAPTOP_NAMESPACE, LAPTOP_UID, Host
from tests.support.cluster.images import PYTHON, PYTHON_ENVIRONMENT, python_binds

BIN = "/mnt/bin"
_END_SECONDS = 10.0


class LaptopProgram:
    """A program that runs there; `output` gathers what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self._grown = asyncio.Condition()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        """Its process id, seen from outside."""
        children = psutil.Process(self._process.pid).children()
        return children[0].pid if children else self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.kill(self.pid, number)

    async def printed(self, text: str, *, seconds: float = 30) -> str:
        """Waits until it has printed something: the line.

        Raises:
            AssertionError: it did not, or ended without; with all that it printed.
        """
        try:
            async with asyncio.timeout(seconds), self._grown:
                await self._grown.wait_for(lambda: self._find(text) or self._process.returncode is not None)
        except TimeoutError:
            pass
        found = self._find(text)
        assert found, f"{text!r} was not printed; exit code {self._process.returncode}:\n{self.output}"
        return found

    async def wait(self, *, seconds: float = 30) -> int:
        """Its exit code."""
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def end(self) -> None:
        """Stops it if it runs."""
        if self._process.returncode is None:
            self.signal(signal.SIGTERM)
            try:
                await self.wait(seconds=_END_SECONDS)
            except TimeoutError:
                self.signal(signal.SIGKILL)
                await self._process.wait()

    async def read(self) -> None:
        """Gathers the output to its end."""
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            async with self._grown:
                self.lines.append(line.decode(errors="replace"))
                self._grown.notify_all()
        await self._process.wait()
        async with self._grown:
            self._grown.notify_all()

    def _find(self, text: str) -> str | None:
        return next((line for line in self.lines if text in line), None)


class Laptop:
    """The machine. Its user may write nothing but their home, and has a kubeconfig there.

    Args:
        host: the machine that it is a corner of.
        kubeconfig: a user's kubeconfig, by user and namespace, for programs on that machine.
        kubectl: the program; it is on the PATH there, as hairpin is.
    """

    def __init__(self, host: Host, kubeconfig: Callable[[str, str], Path], kubectl: Path) -> None:
        self._host = host
        self._kubectl = kubectl
        self._kubeconfig = kubeconfig
        self.home = host.private / "home"
        self._prepared = False

    def command(
        self, *argv: str, user: str = "alice", namespace: str = "default", env: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command as it has to be started from outside, to run there as the ordinary user with that user's kubeconfig."""
        self._prepare()
        environment = {
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "USER": user,
            "LANG": "C.UTF-8",
            "KUBECONFIG": str(self._kubeconfig(user, namespace)),
            **PYTHON_ENVIRONMENT,
            **(env or {}),
        }
        who = ["setpriv", f"--reuid={LAPTOP_UID}", f"--regid={LAPTOP_UID}", "--clear-groups", "--inh-caps=-all"]
        variables = [f"{name}={value}" for name, value in environment.items()]
        enter = self._host.enter
        return [
            *enter,
            "ip",
            "netns",
            "exec",
            LAPTOP_NAMESPACE,
            *who,
            "env",
            "-i",
            f"--chdir={self.home}",
            *variables,
            *argv,
        ]

    def hairpin(self, *arguments: str) -> list[str]:
        """hairpin's command line, to be started by `running` or `run`; the process is hairpin's own, no shell's."""
        return [PYTHON, "-m", "hairpin", *arguments]

    @contextlib.asynccontextmanager
    async def running(self, *argv: str, **options: Any) -> AsyncIterator[LaptopProgram]:
        """A program that runs there during the block; it is ended with it.

        Args:
            argv: what runs; see `hairpin`.
            options: see `command`.
        """
        process = await asyncio.create_subprocess_exec(
            *self.command(*argv, **options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        program = LaptopProgram(process)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(program.read())
            try:
                yield program
            finally:
                await program.end()
                # Its orphans may hold the pipe open.
                await asyncio.wait([reading], timeout=_END_SECONDS)
                reading.cancel()

    async def run(self, *argv: str, seconds: float = 60, **options: Any) -> tuple[int, str]:
        """A program to its end: exit code and output."""
        async with self.running(*argv, **options) as program:
            code = await program.wait(seconds=seconds)
        return code, program.output

    def _prepare(self) -> None:
        """Python and hairpin where an ordinary user may enter; a home."""
        if self._prepared:
            return
        uid = str(LAPTOP_UID)
        run = self._host.run
        run("install", "-d", "-o", uid, "-g", uid, str(self.home))
        # Nobody uses /mnt here: a file system of the machine's own over it.
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "mnt", "/mnt")
        for source, target in python_binds().items():
            run("mkdir", "-p", target)
            run("mount", "--bind", str(source), target)
        run("install", "-D", "/dev/null", f"{BIN}/kubectl")
        run("mount", "--bind", str(self._kubectl), f"{BIN}/kubectl")
        script = self._host.inside(f"{BIN}/hairpin")
        script.write_text(f'#!/bin/sh\nexec {PYTHON} -m hairpin "$@"\n')
        script.chmod(0o755)
        self._prepared = True
