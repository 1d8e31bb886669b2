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
from typing import Any
from unittest import mock
from xml.etree import ElementTree as ET

from local_proxy.ide.languages import Language
from local_proxy.ide.launches import plan
from local_proxy.ide.write import write_intellij, write_vscode
from tests.laptop.builds import part
from tests.support.mesh import TestMesh

SOURCES = Path(__file__).parent / "debuggees"
WHO = "debugged"
SECONDS = 40.0


def breakpoint_line(source: Path) -> int:
    """The line that says so."""
    return next(number for number, line in enumerate(source.read_text().splitlines(), 1) if "breakpoint" in line)


COMMANDS = {
    Language.PYTHON: ["python", "service.py", WHO],
    Language.NODE: ["node", "--stack-trace-limit=20", "service.js", WHO],
    Language.GO: ["go", "run", "-tags", "debugged", ".", WHO],
    Language.JAVA: ["java", "-cp", ".", "-Xmx64m", "Service", WHO],
}
"""As hairpin.yaml has them: with an option of the interpreter's own, and an argument of the program's."""


def repository(folder: Path, mesh: TestMesh, language: Language, intercept: str) -> Path:
    """Its folder: the service's sources, hairpin.yaml, and what `hairpin ide` writes for both IDEs."""
    folder = folder / "shop"
    shutil.copytree(SOURCES, folder)
    checkout = {"target": "checkout:http", "command": COMMANDS[language]}
    if language is Language.GO:
        checkout["folder"] = "go"
    (folder / "hairpin.yaml").write_text(
        f"config: {json.dumps(str(mesh.folder.developer('alice')))}\nenv: alice\nintercept: {json.dumps(intercept)}\n"
        f"services: {{checkout: {json.dumps(checkout)}, inventory: {{target: inventory}}}}\n"
    )
    folders = f"{part('delve')}:" if language is Language.GO else ""
    path = f"{folders}{Path(sys.executable).parent}:{os.environ['PATH']}"
    with mock.patch.dict(os.environ, PATH=path):
        planned = plan(folder, None, "checkout", (), os.environ)
        assert [launch.language for launch in planned.launches] == [language]
        write_vscode(planned)
        write_intellij(planned)
    return folder


def launch_json_entry(folder: Path) -> dict[str, Any]:
    """The configuration of launch.json, as VS Code has it when it starts it."""
    text = (folder / ".vscode" / "launch.json").read_text().replace("${workspaceFolder}", str(folder))
    (entry,) = json.loads(text)["configurations"]
    assert (entry["request"], entry["env"]) == ("launch", {"HAIRPIN_SERVICE": "checkout"})
    return dict(entry)


def run_xml_options(folder: Path) -> dict[str, str]:
    """The options of `.run/*.run.xml`, as a JetBrains IDE has them when it starts the configuration."""
    (file,) = (folder / ".run").iterdir()
    root = ET.fromstring(file.read_text().replace("$PROJECT_DIR$", str(folder)))
    variables = [(env.get("name"), env.get("value")) for env in root.iter("env")]
    assert variables == [("HAIRPIN_SERVICE", "checkout")]
    return {str(option.get("name")): str(option.get("value")) for option in root.iter("option")}


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
