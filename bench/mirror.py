"""What a copy costs the request that is copied: with a laptop that takes it, a dead one and a frozen one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from bench.mesh import PATIENCE, ROOT, BenchMesh, bench_mesh
from bench.paths import CONNECTIONS, control_plane, sampled, spread, summary
from hairpin.errors import HairpinError
from hairpin.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BASELINE = "no session at all"
PAUSE = 0.005
"""Seconds between requests that are not to compete with their own copies."""
_MADE = "cluster.hairpin|copies|80.upstream_rq_total"


async def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """All rows, interleaved: one after another in each round; and which share of the copies was made.

    The control plane is frozen meanwhile, so that nobody withdraws the rules of the dead and the frozen laptop.
    """
    samples: dict[str, dict[int, list[dict[str, float]]]] = {}
    paces: dict[str, list[float]] = {}
    async with (
        bench_mesh() as mesh,
        _mirror(mesh, "alice"),
        _mirror(mesh, "bob") as bob,
        _mirror(mesh, "carol") as carol,
    ):
        control_plane(mesh).send_signal(signal.SIGSTOP)
        frozen = _tree(carol)
        try:
            _signal(_tree(bob), signal.SIGKILL)
            _signal(frozen, signal.SIGSTOP)
            for _ in range(rounds):
                for name, (host, environment) in _ROWS.items():
                    headers = {"Host": host} | ({"x-env": environment} if environment else {})
                    for connections in CONNECTIONS:
                        before = await _made(mesh)
                        found = await sampled(mesh.caller, headers, connections, seconds)
                        found["copied"] = (await _made(mesh) - before) / (found["rps"] * seconds)
                        samples.setdefault(name, {}).setdefault(connections, []).append(found)
                    paces.setdefault(name, []).append(await _paced(mesh, headers, seconds))
        finally:
            _signal(frozen, signal.SIGCONT)
            control_plane(mesh).send_signal(signal.SIGCONT)
    shares = {
        f"{name}, {connections} connections": sum(one["copied"] for one in found) / len(found)
        for name, by_connections in samples.items()
        for connections, found in by_connections.items()
        if name not in (BASELINE, "a plain sidecar")
    }
    paced = {
        name: {
            "p50": spread(found),
            "over": spread([one - base for one, base in zip(found, paces[BASELINE], strict=True)]),
        }
        for name, found in paces.items()
    }
    return {"paths": summary(samples, BASELINE), "paced": paced, "copied": shares}


def paced_text(paced: dict[str, Any]) -> str:
    """The p50 of requests that come one by one, and what it is over the baseline's of the same round."""
    lines = [
        f"  {name:<45} {row['p50']['median'] * 1e3:>6.2f} ms  {row['over']['median'] * 1e3:>+6.2f} "
        f"({row['over']['low'] * 1e3:+.2f}–{row['over']['high'] * 1e3:+.2f})"
        for name, row in paced.items()
    ]
    return "\n".join(["", f"p50 at one request each {PAUSE * 1e3:.0f} ms, and over the baseline", *lines]) + "\n"


def shares_text(shares: dict[str, float]) -> str:
    """How many of the requests left the sidecar in copy."""
    lines = [f"  {name:<45} {share:>5.0%}" for name, share in shares.items()]
    return "\n".join(["", "copied", *lines]) + "\n"


_ROWS = {
    "a plain sidecar": ("plain", ""),
    BASELINE: ("idle", ""),
    "mirrored": ("target", "alice"),
    "mirrored, laptop dead": ("target", "bob"),
    "mirrored, laptop frozen": ("target", "carol"),
}


async def _paced(mesh: BenchMesh, headers: dict[str, str], seconds: float) -> float:
    """The p50, in seconds, of requests on one connection with pauses: nothing queues for the machine's cores."""
    address = mesh.caller.removeprefix("http://").rstrip("/")
    host, _, port = address.rpartition(":")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET / HTTP/1.1\r\n{lines}\r\n".encode()
    reader, writer = await asyncio.open_connection(host, int(port))
    times = []
    try:
        for _ in range(int(seconds / PAUSE)):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            times.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200 "):
                raise HairpinError(f"a request with {headers} was answered {head[:40]!r}: nothing to measure")
            await asyncio.sleep(PAUSE)
    finally:
        writer.close()
    return median(times)


async def _made(mesh: BenchMesh) -> int:
    statistics = await mesh.supervisor.proxies["target"].admin.stats(
        r"^cluster\.hairpin\|copies\|80\.upstream_rq_total$"
    )
    return statistics.get(_MADE, 0)


@contextlib.asynccontextmanager
async def _mirror(mesh: BenchMesh, user: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`hairpin run --mode mirror` of the app, once a copy comes."""
    port = next(free_ports())
    app = [sys.executable, "-m", "bench.app", str(port), f"laptop-{user}"]
    flags = ["--mode", "mirror", "--env", user, "--target", "target", "--port", str(port), "--quiet"]
    process = await asyncio.create_subprocess_exec(
        *mesh.command(user, *flags, "--", *app), cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        await _copies_come(mesh, user)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), PATIENCE)


async def _copies_come(mesh: BenchMesh, environment: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            before = await _made(mesh)
            while await _made(mesh) == before:
                if (who := await mesh.who(environment)) != "cluster":
                    raise HairpinError(f"a request of {environment} was answered by {who}, not by the cluster")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise HairpinError(f"no copy of {environment}'s requests was made") from None


def _tree(laptop: asyncio.subprocess.Process) -> list[psutil.Process]:
    whole = psutil.Process(laptop.pid)
    return [whole, *whole.children(recursive=True)]


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
