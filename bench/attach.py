"""How long a developer waits: from the command to the first steered request; and for `hairpin --version`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import Any

from bench.mesh import ROOT, bench_mesh
from bench.paths import spread
from hairpin.errors import HairpinError
from hairpin.ports import free_ports


async def measure(rounds: int) -> dict[str, Any]:
    """Seconds from the start of `hairpin run` to the first request that its process answers, and to the end of it all."""
    starts, ends = [], []
    async with bench_mesh() as mesh:
        for _ in range(rounds):
            port = next(free_ports())
            app = [sys.executable, "-m", "bench.app", str(port), "laptop"]
            arguments = ["--env", "alice", "--target", "target", "--quiet", "--", *app]
            begin = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                *mesh.command("alice", *arguments), cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
            try:
                await mesh.answered_by("laptop", "alice")
                starts.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                process.send_signal(signal.SIGINT)
                await mesh.answered_by("cluster", "alice")
                ends.append(time.perf_counter() - begin)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)
                await process.wait()
    return {"first steered request": spread(starts), "given back after Ctrl-C": spread(ends)}


async def version(rounds: int) -> dict[str, Any]:
    """Seconds that `hairpin --version` takes, as installed."""
    times = []
    program = ROOT / ".venv" / "bin" / "hairpin"
    for _ in range(rounds):
        begin = time.perf_counter()
        process = await asyncio.create_subprocess_exec(program, "--version", stdout=asyncio.subprocess.DEVNULL)
        if await process.wait() != 0:
            raise HairpinError("hairpin --version failed")
        times.append(time.perf_counter() - begin)
    return {"hairpin --version": spread(times)}
