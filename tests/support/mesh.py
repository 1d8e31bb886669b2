"""A whole embedded mesh for tests: echo services behind sidecars, agents, the control plane; and `hairpin run` in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from hairpin.api import read_developer
from hairpin.envoy.admin import AdminClient, admin_socket
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.state import MeshFolder
from hairpin.mesh.supervisor import MeshSupervisor
from hairpin.model.mesh import Mesh
from hairpin.ports import free_ports
from tests.support.cluster.processes import words_of

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds that anything may take to become so: many times what it takes."""


def echo_service(name: str, **more: Any) -> dict[str, Any]:
    """A service that speaks everything, on two ports."""
    command = [
        "{python}",
        "-m",
        "tests.support.echo",
        "--name",
        name,
        "--port",
        "{port:http}",
        "--grpc-port",
        "{port:grpc}",
    ]
    return {"ports": [{"port": 80, "name": "http"}, {"port": 9090, "name": "grpc"}], "command": command, **more}


def echo_mesh(**more: Any) -> Mesh:
    """frontend, checkout and inventory, all echo servers; developers alice and bob."""
    document = {
        "name": "test",
        "entry": {"service": "frontend"},
        "services": {name: echo_service(name) for name in ("frontend", "checkout", "inventory")},
        "developers": ["alice", "bob"],
        **more,
    }
    return mesh_from_document(document, free_ports())


@contextlib.asynccontextmanager
async def running_mesh(mesh: Mesh, folder: Path) -> AsyncIterator[TestMesh]:
    """The mesh, up and ready."""
    state = MeshFolder(folder)
    lock = state.lock()
    try:
        async with MeshSupervisor(mesh, state, ROOT).running() as supervisor:
            yield TestMesh(supervisor)
    finally:
        os.close(lock)


@dataclass
class Run:
    """One `hairpin run` (or another command), its output collected."""

    process: asyncio.subprocess.Process
    errors: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _readers: tuple[asyncio.Task[None], ...] = ()

    @property
    def error(self) -> str:
        """Its last line on stderr."""
        return self.errors[-1] if self.errors else ""

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Collect its output, to its end, which the block sees to; what the block fails by has all of it as a note."""
        failure = None
        assert self.process.stdout
        assert self.process.stderr
        async with asyncio.TaskGroup() as tasks:
            self._readers = (
                tasks.create_task(self.collect(self.process.stdout, self.output)),
                tasks.create_task(self.collect(self.process.stderr, self.errors)),
            )
            try:
                yield
            except Exception as error:  # raised below, where the group does not wrap it
                failure = error
        if failure is not None:
            failure.add_note("\n".join(["on its stdout:", *self.output, "on its stderr:", *self.errors]))
            raise failure

    async def ended(self) -> int:
        """Wait for its end, and for all that it wrote; the exit code, negative for a signal."""
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        await asyncio.wait(self._readers, timeout=PATIENCE)
        return code

    async def session(self) -> str:
        """The name of its session, once it has one."""
        return (await self.said(r"session ([-a-z0-9]+):"))[1]

    async def egress_port(self) -> int:
        """The port of its HTTP proxy into the mesh, once it is up."""
        return int((await self.said(r"HTTP proxy at 127\.0\.0\.1:(\d+)"))[1])

    async def said(self, pattern: str) -> re.Match[str]:
        """Wait for a line on stderr that matches."""
        return await self.said_since(0, pattern)

    async def said_since(self, start: int, pattern: str) -> re.Match[str]:
        """The same, past so many lines."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while asyncio.get_running_loop().time() < deadline:
            ended = self.process.returncode is not None and all(reader.done() for reader in self._readers)
            self._news.clear()
            for line in self.errors[start:]:
                if found := re.search(pattern, line):
                    return found
            if ended:
                raise AssertionError(f"ended with {self.process.returncode}, without {pattern!r}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 0.5)
        raise AssertionError(f"never said {pattern!r}")

    async def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it by a signal, as a terminal would, and wait."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.ended()

    async def collect(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode(errors="replace").rstrip("\n"))
            self._news.set()
        self._news.set()


class TestMesh:
    """What tests ask of a mesh."""

    __test__ = False

    def __init__(self, supervisor: MeshSupervisor) -> None:
        self.supervisor = supervisor
        self.mesh = supervisor.mesh
        self.folder = supervisor.folder

    @property
    def entry(self) -> tuple[str, int]:
        return self.mesh.entry.address.host, self.mesh.entry.address.port

    @contextlib.asynccontextmanager
    async def hairpin(
        self, user: str, *arguments: str, environment: dict[str, str] | None = None, wrapper: Sequence[str] = ()
    ) -> AsyncIterator[Run]:
        """`hairpin` with these arguments as this developer; ended, and killed if need be, when the block ends."""
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            sys.executable,
            "-m",
            "hairpin",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "HAIRPIN_CONFIG": str(self.folder.developer(user)), **(environment or {})},
            start_new_session=True,  # of a terminal's foreground, its command would get Ctrl-C from the terminal
        )
        run = Run(process)
        async with run.reading():
            try:
                yield run
            finally:
                with contextlib.suppress(ProcessLookupError, TimeoutError):
                    await run.end()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def command(self, user: str, *arguments: str, **more: Any) -> Run:
        """`hairpin` with these arguments as this developer, run to its end."""
        async with self.hairpin(user, *arguments, **more) as run:
            await run.ended()
        return run

    @contextlib.asynccontextmanager
    async def laptop(
        self,
        user: str,
        env: str | None,
        *flags: str,
        target: str = "checkout:http",
        who: str = "",
        echo: Sequence[str] = (),
    ) -> AsyncIterator[Run]:
        """`hairpin run` of an echo server that answers as `laptop of USER`, once it says that requests come there."""
        command = [sys.executable, "-m", "tests.support.echo", "--name", who or f"laptop of {user}", *echo]
        environment = ["--env", env] if env else []
        arguments = ["run", *environment, "--target", target, *flags, "--", *command]
        async with self.hairpin(user, *arguments) as run:
            await run.said("takes the requests")
            yield run

    async def ask(
        self, environment: str | None = None, *, host: str = "checkout", path: str = "/", **more: Any
    ) -> dict[str, Any]:
        """One request through the entry; a GET unless told otherwise."""
        headers = {"host": host, **({"x-env": environment} if environment else {}), **more.pop("headers", {})}
        method = more.pop("method", "GET")
        url = f"http://{self.mesh.entry.address}{path}"
        forever = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(timeout=forever) as client,
            client.request(method, url, headers=headers, **more) as response,
        ):
            body = await response.read()
            assert response.status == 200, f"{response.status}: {body!r}"
            answer: dict[str, Any] = await response.json(content_type=None)
            return answer | {"response_headers": dict(response.headers)}

    @contextlib.asynccontextmanager
    async def traffic(
        self, environment: str | None = None, *, host: str = "checkout", path: str = "/", pause: float = 0.02
    ) -> AsyncIterator[Counter[str]]:
        """One request after the other on a connection of its own, as long as the block lasts: how many were answered by whom.

        What was no answer is counted too, under what it was.
        """
        counts: Counter[str] = Counter()
        headers = {"host": host, **({"x-env": environment} if environment else {})}

        async def one(client: aiohttp.ClientSession) -> str:
            try:
                async with client.get(f"http://{self.mesh.entry.address}{path}", headers=headers) as response:
                    body = await response.read()
                    return str(json.loads(body)["who"]) if response.status == 200 else f"{response.status}: {body!r}"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"

        async def on(client: aiohttp.ClientSession) -> None:
            while not over.is_set():
                counts[await one(client)] += 1
                await asyncio.sleep(pause)

        over = asyncio.Event()
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(on(client))
            try:
                yield counts
            finally:
                over.set()

    def agent_admin(self, name: str = "hairpin-agent-0") -> AdminClient:
        """The admin interface of an agent's Envoy."""
        return AdminClient(admin_socket(self.folder.run(name) / "envoy"))

    def sidecar_admin(self, workload: str) -> AdminClient:
        """The admin interface of a workload's sidecar."""
        return AdminClient(admin_socket(self.folder.run(f"sidecar-{workload}")))

    async def answered_by(self, who: str, environment: str | None, **more: Any) -> None:
        """Wait until requests of this environment are answered by `who`."""

        async def so() -> bool:
            return bool((await self.ask(environment, **more))["who"] == who)

        await eventually(so, f"requests of {environment} are answered by {who}")

    async def api(self, user: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A call of the session API as this developer."""
        developer = read_developer(self.folder.developer(user))
        context = ssl.create_default_context(cadata=developer.certificate_authority)
        headers = {"Authorization": f"Bearer {developer.token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.request(method, developer.server + path, json=body, ssl=context) as response,
        ):
            return response.status, await response.json()


def started_by(pid: int, words: str) -> list[psutil.Process]:
    """The processes below this one whose command line has these words; one that just ends has none."""
    lines = ((process, words_of(process)) for process in psutil.Process(pid).children(recursive=True))
    return [process for process, line in lines if line and words in " ".join(line)]


async def eventually(condition: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> None:
    """Wait until an async condition is true.

    Raises:
        AssertionError: it did not become so.
    """
    last = ""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if await condition():
                        return
                except (AssertionError, OSError, aiohttp.ClientError) as error:
                    last = f" ({error})"
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"never so: {what}{last}") from None
