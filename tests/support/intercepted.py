"""Programs whose calls are intercepted by the real kernel, in a process without any capability; and the gateway they meet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_proxy.intercept.addresses import Endpoint
from tests.support.proxy_header import FIXED, Header, read_header

SECONDS = 30.0


@dataclass
class Gateway:
    """Stands for the laptop's Envoy: takes connections, reads their headers and answers HTTP or echoes bytes."""

    port: int = 0
    answers: Path | None = None
    """Where to say what became of a connection: as Envoy does, before anything is read or closed."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By authority; the others are connected."""
    headers: list[Header] = field(default_factory=list)
    _seen: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """The authorities that were connected to."""
    _told: asyncio.StreamWriter | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def destinations(self) -> list[Endpoint]:
        return [header.destination for header in self.headers]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            start = await reader.readexactly(FIXED)
            rest = await reader.readexactly(int.from_bytes(start[14:16], "big"))
            none, header = read_header(start + rest)
            assert none == b""
            self.headers.append(header)
            self._seen[header.authority].set()
            if self.answers is not None and not await self._answer(header, writer):
                return
            while line := await reader.readline():
                if line.startswith(b"GET "):
                    while (await reader.readline()).strip():
                        pass
                    body = f"{header.authority} {header.name or '-'}\n".encode()
                    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
                    writer.write(head.encode() + body)
                    await writer.drain()
                    return
                writer.write(line)
                await writer.drain()

    async def _answer(self, header: Header, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        outcome = self.outcomes.get(header.authority, Outcome())
        await asyncio.sleep(outcome.seconds)
        if outcome.after:
            await self._seen[outcome.after].wait()
        headers = {":status": str(outcome.status), **outcome.headers} if outcome.status else {}
        answer = {"headers": [{"key": key, "value": value} for key, value in headers.items()]} if headers else None
        host, port = writer.get_extra_info("peername")
        record = {"from": f"{host}:{port}", "answer": answer, "flags": "-" if outcome.status else "UF,URX"}
        if not outcome.silent:
            async with self._opening:
                if self._told is None:
                    _, self._told = await asyncio.open_unix_connection(str(self.answers))
            self._told.write(packed(["hairpin", [[1, record]]]))
        return outcome.status == 200


@dataclass(frozen=True)
class Outcome:
    """What becomes of a connection."""

    status: int = 200
    """0: no agent is reached."""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """How long it takes."""
    after: str = ""
    """The authority that is connected to before it is known, if any."""
    silent: bool = False
    """Nothing is said of it."""


def packed(value: object) -> bytes:
    """As MessagePack, by its specification; no more of it than records need."""
    match value:
        case None:
            return b"\xc0"
        case int():
            return b"\xce" + value.to_bytes(4, "big")
        case str():
            data = value.encode()
            return b"\xda" + len(data).to_bytes(2, "big") + data
        case list():
            return b"\xdc" + len(value).to_bytes(2, "big") + b"".join(map(packed, value))
        case dict():
            pairs = b"".join(packed(key) + packed(item) for key, item in value.items())
            return b"\xde" + len(value).to_bytes(2, "big") + pairs
    raise TypeError(value)


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, backlog=2048)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield made
        finally:
            if made._told is not None:
                made._told.close()


@dataclass
class Ended:
    code: int
    output: str
    lines: list[str]
    """What was said to the user."""


def without_capabilities() -> list[str]:
    """What a command line begins with so that it runs without any capability."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


async def start(
    *command: str, environ: Mapping[str, str] | None = None, **settings: object
) -> asyncio.subprocess.Process:
    """A supervisor with the command; see `tests.support.intercepted_main` for the settings."""
    main = [sys.executable, "-m", "tests.support.intercepted_main", json.dumps(settings), *command]
    return await asyncio.create_subprocess_exec(
        *without_capabilities(),
        *main,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **(environ or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*command: str, environ: Mapping[str, str] | None = None, **settings: object) -> Ended:
    """The same to its end."""
    process = await start(*command, environ=environ, **settings)
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    lines = errors.decode().splitlines()
    return Ended(process.returncode or 0, output.decode(), lines)


async def kill_once_begun(process: asyncio.subprocess.Process) -> bytes:
    """Kill the supervisor when its command has said a line, and has had a moment to call; the line.

    However slowly it starts: what has not called by then is answered alike.
    """
    assert process.stdout
    line = await asyncio.wait_for(process.stdout.readline(), SECONDS)
    await asyncio.sleep(0.3)
    process.kill()
    return line


def compiled(source: Path, folder: Path, *flags: str) -> str:
    """A C program."""
    import subprocess

    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "a C compiler is needed: Debian's gcc"
    program = folder / source.stem
    subprocess.run([compiler, "-O1", "-o", str(program), str(source), *flags], check=True)
    return str(program)
