"""Load by wrk (Debian's package), and what it measured."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from hairpin.errors import HairpinError, NotFoundError

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run."""

    requests: int
    per_second: float
    p50: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""
    failed: int
    """Answers that were not 2xx or 3xx, and socket errors."""


async def wrk(
    url: str,
    *,
    connections: int,
    seconds: int,
    headers: dict[str, str] | None = None,
    inside: Sequence[str] = (),
) -> Load:
    """Load a URL on loopback, or in a network namespace.

    Args:
        url: of what.
        connections: how many are kept open.
        seconds: for how long; wrk knows whole ones alone.
        headers: of each request.
        inside: put before the command, to run it elsewhere.

    Raises:
        NotFoundError: wrk is not installed.
        HairpinError: it failed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise NotFoundError("wrk is not installed; on Debian: apt-get install wrk")
    arguments = ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    for name, value in (headers or {}).items():
        arguments += ["-H", f"{name}: {value}"]
    process = await asyncio.create_subprocess_exec(
        *inside, program, *arguments, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise HairpinError(f"wrk failed: {errors.decode().strip() or output.decode().strip()}")
    return parse(output.decode())


def parse(output: str) -> Load:
    """Read wrk's report."""

    def number(pattern: str, default: str | None = None) -> str:
        found = re.search(pattern, output)
        if found is None and default is None:
            raise HairpinError(f"wrk's report has no {pattern!r}:\n{output}")
        return found[1] if found else str(default)

    def milliseconds(percent: int) -> float:
        value = number(rf"{percent}%\s+([\d.]+(?:us|ms|s|m))")
        unit = re.sub(r"[\d.]", "", value)
        return float(value.removesuffix(unit)) * UNITS[unit]

    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    failed = int(number(r"Non-2xx or 3xx responses: (\d+)", "0")) + sum(map(int, sockets.groups() if sockets else ()))
    return Load(
        requests=int(number(r"(\d+) requests in")),
        per_second=float(number(r"Requests/sec:\s+([\d.]+)")),
        p50=milliseconds(50),
        p99=milliseconds(99),
        failed=failed,
    )
