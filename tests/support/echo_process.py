"""Starts the echo server as a process of its own, for a test or a fixture."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoProcess:
    """A running echo server."""

    who: str
    http: tuple[str, int]
    grpc: tuple[str, int]
    process: asyncio.subprocess.Process


@asynccontextmanager
async def echo_process(
    who: str, *, port: int = 0, grpc_port: int = 0, environment: Mapping[str, str] | None = None
) -> AsyncIterator[EchoProcess]:
    """An echo server, ready when the block begins, ended with it. `environment` is added to this process's."""
    arguments = ["--name", who, "--port", str(port), "--grpc-port", str(grpc_port)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.echo", *arguments),
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        line = (await process.stdout.readline()).decode()
        assert line.startswith("listening "), f"the echo server did not start; it printed {line!r}"
        ports = dict(part.split("=") for part in line.split()[1:])
        http, grpc = ("127.0.0.1", int(ports["http"])), ("127.0.0.1", int(ports["grpc"]))
        yield EchoProcess(who=who, http=http, grpc=grpc, process=process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
