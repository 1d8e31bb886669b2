"""Someone who follows a page of the documents, command by command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from hairpin.ports import free_ports
from tests.support.mesh import ROOT


def commands(page: Path) -> dict[str, str]:
    """A page's blocks of commands, by what stands beside `sh`."""
    return dict(re.findall(r"^```sh ([^\n]+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


class Reader:
    """Someone who follows a page, in a folder with this repository's examples.

    Args:
        home: the folder.
        ports: those that the page names; free ones are taken in their place. The entry's is the first.
    """

    def __init__(self, home: Path, *ports: str) -> None:
        self.home = home
        self.ports = dict(zip(ports, map(str, free_ports()), strict=False))
        shutil.copytree(ROOT / "examples", home / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        mesh = home / "examples" / "shop" / "mesh.yaml"
        text = mesh.read_text()
        assert f"port: {ports[0]}}}" in text
        mesh.write_text(text.replace(f"port: {ports[0]}}}", f"port: {self.ports[ports[0]]}}}"))
        inherited = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self.environment = {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "USER": "alice",
            "TMPDIR": str(home),
            "XDG_STATE_HOME": str(home / "state"),
        }

    async def types(self, command: str, folder: str = ".") -> str:
        """A block of commands, as bash runs it: what it prints."""
        async with self.running(command, folder) as process:
            output, errors = (stream.decode() for stream in await process.communicate())
            assert process.returncode == 0, f"{command}\n{output}{errors}"
        return output

    @contextlib.asynccontextmanager
    async def running(
        self, command: str, folder: str = ".", **environment: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Commands in a terminal of their own; Ctrl-C at the end."""
        for port, free in self.ports.items():
            command = re.sub(rf"\b{port}\b", free, command)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.home / folder,
            env={**self.environment, **environment},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.communicate(), 20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def said(process: asyncio.subprocess.Process, words: str) -> None:
    assert process.stderr is not None
    lines = []
    async with asyncio.timeout(60):
        while line := (await process.stderr.readline()).decode():
            lines.append(line)
            if words in line:
                return
    raise AssertionError("".join(lines))


@contextlib.asynccontextmanager
async def reading(*ports: str) -> AsyncIterator[Reader]:
    """A reader, of whom nothing is left at the end. The ports are those that the page names."""
    with tempfile.TemporaryDirectory(prefix="hp-") as name:  # short: sockets are in it
        one = Reader(Path(name), *ports)
        yield one
        left = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TMPDIR") == name]
        _, alive = psutil.wait_procs(left, 10)
        assert not alive
