"""Envoy as a managed process: started, watched, drained, restarted, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hairpin.envoy.admin import AdminClient, admin_socket, remove_admin_socket
from hairpin.envoy.binary import find_envoy
from hairpin.envoy.child import Child
from hairpin.envoy.drain import drain
from hairpin.envoy.failure import LOG_FORMAT, exit_in_words, log_record, not_ready, refusal, start_failure
from hairpin.envoy.preflight import check_addresses, validate
from hairpin.errors import HairpinError, UnavailableError
from hairpin.files import private_directory, write_private

__all__ = ["ManagedEnvoy", "validate"]

log = logging.getLogger("hairpin.envoy")

READY_SECONDS: Final = 45.0
"""Longer than Envoy waits for a control plane that is silent: 15 s for its clusters and 15 s for its listeners."""
TERM_SECONDS: Final = 5.0
"""Between SIGTERM and SIGKILL."""
HEALTHY_SECONDS: Final = 10.0
"""An Envoy that ran so long is restarted at once."""
FIRST_DELAY, LAST_DELAY = 0.1, 5.0
"""Seconds before the second restart in a row, and the most that doubling makes of them."""
FLUSH_MILLISECONDS: Final = 50
"""How long Envoy keeps a line of an access log."""

_LOG_LINES = 200


class ManagedEnvoy:
    """One Envoy and its lifetime.

    As a context manager it is up inside the block, is restarted when it dies, and is stopped at the block's end. Or: `start`,
    `run` as a task of the caller's TaskGroup (without it nothing restarts it), and `stop`.

    Args:
        name: what users know it as; in messages.
        bootstrap: its configuration, without an admin address.
        directory: for its files; made if need be, private, and no other Envoy's.
        concurrency: worker threads.
        on_line: called with each line of its stdout, where access logs go.
        on_log: called with each line of its stderr (`failure.parse_line` reads it); by default warnings are logged.
        on_exit: called with the exit code (negative: a signal) when it ends unasked.
        drain_seconds: how long `stop` and `restart` let requests finish.
        log_level: Envoy's `--log-level`.
        restart: whether `run` restarts it.
        ready_seconds: how long it may take to have its configuration.
        leash: what ends it when this process is killed, see `hairpin.envoy.leash`; by default what suits.
        arguments: further ones for Envoy.
    """

    def __init__(
        self,
        name: str,
        bootstrap: Mapping[str, Any],
        directory: Path,
        *,
        concurrency: int = 1,
        on_line: Callable[[bytes], None] | None = None,
        on_log: Callable[[bytes], None] | None = None,
        on_exit: Callable[[int], None] | None = None,
        drain_seconds: float = 0.0,
        log_level: str = "warning",
        restart: bool = True,
        ready_seconds: float = READY_SECONDS,
        leash: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.restarts = 0
        """How often `run` has restarted it."""
        self._bootstrap = bootstrap
        self._directory = directory
        self._concurrency = concurrency
        self._on_line = on_line or _ignore
        self._on_log = on_log or self._log
        self._on_exit = on_exit or _ignore
        self._drain_seconds = drain_seconds
        self._log_level = log_level
        self._restart = restart
        self._ready_seconds = ready_seconds
        self._leash = leash
        self._arguments = tuple(arguments)
        self._child: Child | None = None
        self._admin: AdminClient | None = None
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        """Clear while `restart` is between two processes."""
        self._settled.set()
        self._spawning = asyncio.Lock()
        self._starting = False
        self._group: asyncio.TaskGroup | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None while it doesn't run."""
        return self._child.pid if self._child is not None and self._child.alive else None

    @property
    def admin(self) -> AdminClient:
        """Its admin interface.

        Raises:
            UnavailableError: it was not started.
        """
        if self._admin is None:
            raise UnavailableError(f"{self.name}: Envoy was not started")
        return self._admin

    async def start(self) -> None:
        """Starts it and returns when it is LIVE. When this raises or is cancelled, nothing is left running.

        Raises:
            RefusedError: it does not take its configuration; with Envoy's reason.
            HairpinError: an address it shall listen on is taken, or it ended otherwise.
            UnavailableError: it runs, but got no configuration in time; or `stop` was called meanwhile.
            NotFoundError: there is no binary.
        """
        if self.pid is None:
            self._stopping.clear()
            await self._start()

    async def run(self) -> None:
        """Starts it unless it was started, and restarts it whenever it dies, until `stop`. Cancelled, it stops it.

        The first restart comes at once, further ones in a row after 0.1 s, doubling to 5 s.
        """
        try:
            if self._child is None:
                await self.start()
            await self._supervise()
        except UnavailableError:
            if not self._stopping.is_set():  # else `stop` came while it started
                raise
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Ends it: drains, then SIGTERM, then SIGKILL. Cancelled, it kills at once. Any number of times."""
        self._stopping.set()
        async with self._spawning:
            pass  # what is just being started is ended too
        await self._end(self._drain_seconds)

    async def restart(self) -> None:
        """Stops it as `stop` does and starts it again with the same configuration. Raises what `start` does."""
        self._settled.clear()
        try:
            await self._end(self._drain_seconds)
            if not self._stopping.is_set():
                await self._start()
        finally:
            self._settled.set()

    async def __aenter__(self) -> Self:
        await self.start()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._group.create_task(self.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        assert group is not None  # noqa: S101
        # What the block raised goes its own way, not inside a group; a cancellation may be the group's own.
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            await self.stop()
        finally:
            await group.__aexit__(*((kind, error, traceback) if cancelled else (None, None, None)))

    # One process.

    async def _start(self) -> None:
        self._starting = True
        try:
            async with self._spawning:
                await self._spawn()
            await self._until_ready()
        except BaseException:
            await self._end(0)
            raise
        finally:
            self._starting = False

    async def _spawn(self) -> None:
        if self.pid is not None:
            return
        check_addresses(self.name, self._bootstrap)
        binary = find_envoy()
        try:
            command = self._command(binary, self._write_bootstrap())
            self._lines.clear()
            self._child = await Child.spawn(
                command, on_stdout=self._on_line, on_stderr=self._on_stderr, on_exit=self._exited, leash=self._leash
            )
        except OSError as e:
            raise HairpinError(f"{self.name}: Envoy can't be started: {e}") from e

    def _write_bootstrap(self) -> Path:
        private_directory(self._directory)
        remove_admin_socket(self._admin)
        path = admin_socket(self._directory)
        self._admin = AdminClient(path)
        admin = {**self._bootstrap.get("admin", {}), "address": {"pipe": {"path": str(path), "mode": 0o600}}}
        file = self._directory / "bootstrap.json"
        write_private(file, json.dumps({**self._bootstrap, "admin": admin}, indent=1).encode())
        return file

    def _command(self, binary: Path, bootstrap: Path) -> list[str]:
        return [
            *(str(binary), "--config-path", str(bootstrap), "--disable-hot-restart"),
            *("--concurrency", str(self._concurrency), "--file-flush-interval-msec", str(FLUSH_MILLISECONDS)),
            *("--log-level", self._log_level, "--log-format", LOG_FORMAT, "--log-format-escaped"),
            *self._arguments,
        ]

    async def _until_ready(self) -> None:
        child, pause = self._child, 0.01
        assert child is not None  # noqa: S101
        try:
            async with asyncio.timeout(self._ready_seconds):
                while not await self.admin.ready():
                    if await child.wait(pause):
                        raise await self._failure(child)
                    pause = min(pause * 1.5, 0.25)
        except TimeoutError:
            try:
                state = await self.admin.state()
            except UnavailableError:
                state = None
            raise not_ready(self.name, self._ready_seconds, state) from None

    async def _failure(self, child: Child) -> HairpinError:
        if self._stopping.is_set():
            return UnavailableError(f"{self.name}: Envoy was stopped before it was ready")
        await child.kill()  # its last words
        return start_failure(self.name, child.code or 0, self._lines)

    async def _end(self, drain_seconds: float) -> None:
        child = self._child
        if child is None:
            return
        child.asked = True
        try:
            if child.alive and drain_seconds > 0:
                await drain(self.admin, drain_seconds, still=lambda: child.alive)
            child.signal(signal.SIGTERM)
            if not await child.wait(TERM_SECONDS):
                log.warning("%s: Envoy did not end within %g s of SIGTERM: killed", self.name, TERM_SECONDS)
        finally:
            await child.kill()
            if self._child is child:
                remove_admin_socket(self._admin)

    # Supervision.

    async def _supervise(self) -> None:
        failures, announced = 0, None
        while True:
            child = self._child
            assert child is not None  # noqa: S101
            await child.exited.wait()
            await self._settled.wait()
            if self._stopping.is_set():
                return
            if self._child is not child:
                continue  # by `restart`
            if not self._restart:
                return
            if announced is not child:
                announced = child
                failures = 0 if child.seconds > HEALTHY_SECONDS else failures
                log.warning("%s: Envoy ended with %s and is started again", self.name, self._ending(child))
            await self._pause(min(FIRST_DELAY * 2 ** (failures - 1), LAST_DELAY) if failures else 0)
            failures += 1
            if self._child is child and self._settled.is_set() and not self._stopping.is_set():
                await self._respawn()

    async def _respawn(self) -> None:
        try:
            async with self._spawning:
                await self._spawn()
        except HairpinError as e:
            log.warning("%s", e)
        else:
            self.restarts += 1

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _ending(self, child: Child) -> str:
        reason = refusal(self._lines)
        return exit_in_words(child.code or 0) + (f" ({reason})" if reason else "")

    def _exited(self, code: int) -> None:
        if not self._starting:  # then `start` says so
            self._on_exit(code)

    def _on_stderr(self, line: bytes) -> None:
        self._lines.append(line.decode(errors="replace"))
        self._on_log(line)

    def _log(self, line: bytes) -> None:
        severity, message = log_record(line.decode(errors="replace"))
        if self._starting:
            severity = logging.DEBUG  # what keeps it from starting is raised by `start`
        elif self._child is not None and self._child.asked:
            severity = min(severity, logging.INFO)  # asked to end, it warns of its own streams' ends
        log.log(severity, "%s: %s", self.name, message)


def _ignore(_: object) -> None:
    pass
