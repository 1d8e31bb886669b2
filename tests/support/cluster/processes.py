"""Programs that end with whoever started them, however that one ends, and whose logs are at hand when a test fails."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from hairpin.envoy.leash import leashed

_END_SECONDS = 10.0


class Program:
    """One running program, its log a file.

    Args:
        name: for messages and the log's name.
        argv: what runs.
        log: where its output goes.
        enters: argv is a command such as nsenter, which waits for the program itself as its child.
    """

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, enters: bool = False
    ) -> None:
        self.name = name
        self.log = log
        self._enters = enters
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                leashed(list(map(str, argv)), "pipe"), stdin=subprocess.PIPE, stdout=output, stderr=output, env=env
            )

    @property
    def pid(self) -> int:
        """The program's own process id, seen from here."""
        if not self._enters:
            return self._process.pid
        children = psutil.Process(self._process.pid).children()
        # A leash's watcher was once a child too, but has a session of its own and the interpreter's name.
        programs = [child.pid for child in children if os.getsid(child.pid) == os.getsid(self._process.pid)]
        return programs[0] if programs else self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Sends a signal to the program itself."""
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As `kill -9`, and waits for its end."""
        self.signal(signal.SIGKILL)
        self._end()

    def stop(self) -> None:
        """Asks it to end, and insists after a while."""
        self.signal(signal.SIGTERM)
        self._end()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _end(self) -> None:
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait(_END_SECONDS)
        if self._process.stdin:
            self._process.stdin.close()


def words_of(process: psutil.Process) -> list[str]:
    """The command line of one of a tree's processes; none where it has ended since the tree was looked at."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


class Programs:
    """Programs by name, each of which can be killed and started again; all of them are killed at the block's end.

    Args:
        logs: the folder for their logs.
        prefix: what to put before each command, such as `nsenter …`.
    """

    def __init__(self, logs: Path, *, prefix: Sequence[str] = ()) -> None:
        self._logs = logs
        self._prefix = list(prefix)
        self._recipes: dict[str, tuple[list[str], Mapping[str, str] | None]] = {}
        self._running: dict[str, Program] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        """At once: what they keep is thrown away."""
        for program in self._running.values():
            program.signal(signal.SIGKILL)
        for program in self._running.values():
            program.kill()

    def __getitem__(self, name: str) -> Program:
        return self._running[name]

    def start(self, name: str, argv: Sequence[Any], *, env: Mapping[str, str] | None = None) -> Program:
        """Starts a program under a name that is free."""
        self._recipes[name] = (list(map(str, argv)), env)
        return self.again(name)

    def again(self, name: str) -> Program:
        """Starts a program anew, as it was started first; it must have ended."""
        if name in self._running and self._running[name].running:
            raise ValueError(f"{name} is running")
        argv, env = self._recipes[name]
        environment = {**os.environ, **env} if env is not None else None
        log = self._logs / f"{name}.log"
        self._running[name] = Program(name, [*self._prefix, *argv], log, env=environment, enters=bool(self._prefix))
        return self._running[name]

    def restart(self, name: str) -> Program:
        """Kills it and starts it again."""
        self._running[name].kill()
        return self.again(name)

    def dead(self) -> list[Program]:
        """Those that have ended though nobody asked them to... or were killed and not started again."""
        return [program for program in self._running.values() if not program.running]

    def tails(self) -> str:
        """The ends of all logs, for a report."""
        return "\n".join(f"--- {p.name}\n{p.tail()}" for p in self._running.values())
