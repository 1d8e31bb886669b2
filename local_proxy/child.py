"""The developer's command, as a child on the developer's terminal.

It stays in our own process group, as under `env` or `time`: the terminal then treats both as one job. Ctrl-C and Ctrl-Z
reach the command without us, a debugger or REPL owns the terminal, and we may be part of a pipeline. We outlive a
signal that the terminal sent, since it is the command that decides what it means; one that was sent to us alone is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from hairpin.errors import HairpinError
from local_proxy import guard
from local_proxy.descriptors import gives_listeners, inherited_descriptors
from local_proxy.insistence import Insistence
from local_proxy.signals import SIGNALLED, Signals, in_foreground

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_STANDARD_INPUT = 0

Starter = Callable[[str, Sequence[str], Mapping[str, str]], Awaitable[asyncio.subprocess.Process]]
"""Makes the process of a command: given the program's path, the command line and the environment. May raise OSError."""


class CommandNotFoundError(HairpinError):
    """There is no such command."""

    exit_code = _NOT_FOUND


class CommandNotExecutableError(HairpinError):
    """There is a file, but it can't be run."""

    exit_code = _NOT_EXECUTABLE


def find_command(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Where the command's program is.

    Raises:
        CommandNotFoundError: nowhere.
        CommandNotExecutableError: it is there, but no program.
    """
    name = command[0]
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found:
        return found
    path = Path(name)
    if "/" not in name:
        here = f"; ./{name} is here, if you meant that" if path.is_file() else ""
        raise CommandNotFoundError(
            f"{name}: command not found in PATH{here} (aliases and functions of your shell are not known here)"
        )
    if path.is_dir():
        raise CommandNotExecutableError(f"{name}: is a directory, not a command")
    if path.exists():
        raise CommandNotExecutableError(f"{name}: is not executable; try `chmod +x {name}`")
    raise CommandNotFoundError(f"{name}: no such file")


class Child:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit code, as a shell gives it: 128 + n after signal n."""
        code = await self._process.wait()
        return code if code >= 0 else SIGNALLED - code

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def killed(self) -> bool:
        """Whether a signal ended it."""
        return (self._process.returncode or 0) < 0

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


@contextlib.asynccontextmanager
async def run_child(
    command: Sequence[str],
    environ: Mapping[str, str],
    signals: Signals,
    *,
    folder: Path | None = None,
    warn: Callable[[str], None] = lambda _: None,
    start: Starter | None = None,
    if_killed: guard.IfKilled = guard.IfKilled.END,
) -> AsyncIterator[Child]:
    """Run a command: signals are passed on to it inside the context, and it has ended at the context's end.

    If the context is left early, it gets SIGTERM and, two seconds later, SIGKILL. If we are killed, the same happens
    unless `if_killed` keeps it, and `folder`, where our keys lie, is removed. If it heeds no Ctrl-C, `warn` is told so at
    the second, and the third kills it. `start` makes the process, if not we ourselves.

    Raises:
        CommandNotFoundError: there is no such command, or its interpreter is missing.
        CommandNotExecutableError: it can't be run.
    """
    program = find_command(command, environ)
    terminal = _terminal_settings()
    child = Child(await _start(start or start_natively, program, command, environ))
    insistence = Insistence(child.pid, Path(command[0]).name, warn)
    try:
        async with _guarded(child.pid, folder, if_killed):
            try:
                with signals.forwarded(child.send_signal, insistence.interrupted):
                    yield child
            finally:
                await _ended(child)
    finally:
        insistence.over()
        await _ended(child)
        if child.killed:
            _restore_terminal(terminal)


async def start_natively(
    program: str, command: Sequence[str], environ: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """A process that is ours and nothing else."""
    if gives_listeners(environ):  # the command is told its own process ID, so it has to be there before
        from local_proxy.intercept.launch import waiting  # noqa: PLC0415 - seldom

        async with waiting() as process:
            return await process.execute(program, command, environ)
    return await asyncio.create_subprocess_exec(
        command[0], *command[1:], executable=program, env=dict(environ), pass_fds=inherited_descriptors()
    )


async def _start(
    start: Starter, program: str, command: Sequence[str], environ: Mapping[str, str]
) -> asyncio.subprocess.Process:
    # What was written before the command's first line must stand before it.
    sys.stdout.flush()
    try:
        return await start(program, command, environ)
    except FileNotFoundError as error:
        raise CommandNotFoundError(f"{program}: its interpreter is missing: {_first_line(program)}") from error
    except PermissionError as error:
        raise CommandNotExecutableError(f"{program}: may not be run: {error.strerror}") from error
    except OSError as error:
        raise CommandNotExecutableError(
            f"{program}: can't be run: {error.strerror}; a script needs a first line such as #!/bin/sh"
        ) from error


def _first_line(program: str) -> str:
    with contextlib.suppress(OSError), open(program, "rb") as file:  # noqa: PTH123
        return repr(file.readline(200).decode(errors="replace").rstrip())
    return "it can't be read"


async def _ended(child: Child) -> None:
    if not child.running:
        return
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGCONT)  # a stopped process would not hear of it
    try:
        async with asyncio.timeout(guard.GRACE_SECONDS):
            await child.wait()
    except TimeoutError:
        child.send_signal(signal.SIGKILL)
        await child.wait()


def _terminal_settings() -> list[Any] | None:
    try:
        return termios.tcgetattr(_STANDARD_INPUT)
    except termios.error:
        return None


def _restore_terminal(settings: list[Any] | None) -> None:
    """A command that was killed leaves the terminal as it was in: raw, without echo."""
    if settings is not None and in_foreground():
        with contextlib.suppress(termios.error):
            termios.tcsetattr(_STANDARD_INPUT, termios.TCSADRAIN, settings)


@contextlib.asynccontextmanager
async def _guarded(pid: int, folder: Path | None, if_killed: guard.IfKilled) -> AsyncIterator[None]:
    """Have `if_killed` done, and the folder removed, if we are killed."""
    try:
        started = psutil.Process(pid).create_time()
    except psutil.Error:  # it has ended already
        yield
        return
    watcher = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # its folder is no place to import from
        guard.__file__,
        if_killed,
        str(pid),
        repr(started),
        *([str(folder)] if folder else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            await watcher.communicate(b"done\n")
