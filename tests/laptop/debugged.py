"""A repository as an IDE has it open: hairpin.yaml, shims and a service; and the story that each debugger's test tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from local_proxy.ide.languages import Language
from local_proxy.ide.shims import write_shims
from tests.laptop.builds import part
from tests.support.mesh import TestMesh

SOURCES = Path(__file__).parent / "debuggees"
WHO = "debugged"
SECONDS = 40.0


def breakpoint_line(source: Path) -> int:
    """The line that says so."""
    return next(number for number, line in enumerate(source.read_text().splitlines(), 1) if "breakpoint" in line)


def repository(folder: Path, mesh: TestMesh, language: Language, intercept: str) -> Path:
    """Its folder: the service's sources, hairpin.yaml, shims."""
    folder = folder / "shop"
    shutil.copytree(SOURCES, folder)
    (folder / "hairpin.yaml").write_text(
        f"config: {json.dumps(str(mesh.folder.developer('alice')))}\nenv: alice\nintercept: {json.dumps(intercept)}\n"
        "services: {checkout: {target: 'checkout:http'}, inventory: {target: inventory}}\n"
    )
    folders = f"{part('delve')}:" if language is Language.GO else ""
    found = Path(sys.executable).parent
    environ = {**os.environ, "PATH": f"{folders}{found}:{os.environ['PATH']}"}
    write_shims(folder, [language], service="checkout", environ=environ)
    return folder


async def steered_request(
    mesh: TestMesh, at_breakpoint: Callable[[], Awaitable[None]], go_on: Callable[[], Awaitable[None]]
) -> None:
    """Requests of alice's are made until one comes to the debugged process: it waits there, others don't; then it is answered."""

    async def ask() -> dict[str, object]:
        while True:
            answer = await mesh.ask("alice")
            if answer["who"] == WHO:
                return answer
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask())
        await at_breakpoint()
        assert not asking.done(), asking.result()
        assert (await mesh.ask("bob"))["who"] == "checkout"
        await go_on()
        async with asyncio.timeout(SECONDS):
            assert (await asking)["total"] == 42


class Process:
    """A program that an IDE started: all that it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""
        self._news = asyncio.Condition()

    async def read(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(65536):
            async with self._news:
                self.text += data.decode(errors="replace")
                self._news.notify_all()

    async def said(self, pattern: str, since: int = 0) -> re.Match[str]:
        """Wait until it has said something that matches."""
        try:
            async with asyncio.timeout(SECONDS), self._news:
                while not (found := re.search(pattern, self.text[since:])):
                    await self._news.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"never said {pattern!r}:\n{self.text}") from None

    async def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()


@contextlib.asynccontextmanager
async def started(
    *command: str | Path, cwd: Path, pass_fds: tuple[int, ...] = (), **environ: str
) -> AsyncIterator[Process]:
    """A process during the block; it is ended as an IDE ends it, by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, env={**os.environ, **environ}, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True, pass_fds=pass_fds,
    )  # fmt: skip
    made = Process(process)
    assert process.stdout
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.read(process.stdout))
        try:
            yield made
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(20):
                    await process.wait()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
