"""What a copy costs the request that is copied: with a laptop that takes it, a dead one, a frozen one and a slow one.

In a cluster, a copy's way (the agent's sidecar, the agent, the laptop) is on other machines than the target's pod, and takes
no CPU from the answer. So it has other cores here, too, than the load, the caller and the target with their sidecars: what is
left is what the target's sidecar does itself. How it is where all share all cores stands beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from bench import table
from bench.mesh import PATIENCE, ROOT, BenchMesh, bench_mesh
from bench.paths import CONNECTIONS, control_plane, sampled, spread, summary
from bench.placement import apart, cpu_seconds, halves
from hairpin.errors import HairpinError
from hairpin.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

BASELINE = "no session at all"
PAUSE = 0.005
"""Seconds between requests that are not to compete with their own copies."""
SLOW = 1.0
"""Seconds that the slow laptop's process takes for an answer."""
_MADE = "cluster.hairpin|copies|80.upstream_rq_total"


async def measure(rounds: int, seconds: int) -> dict[str, Any]:
    """All rows in each placement, interleaved: one after another in each round.

    The control plane is frozen meanwhile, so that nobody withdraws the rules of the dead and the frozen laptop.
    """
    cores = halves()
    async with (
        bench_mesh() as mesh,
        _mirror(mesh, "alice"),
        _mirror(mesh, "bob") as bob,
        _mirror(mesh, "carol") as carol,
        _mirror(mesh, "dave", delay=SLOW),
    ):
        control_plane(mesh).send_signal(signal.SIGSTOP)
        frozen = _tree(carol)
        try:
            _signal(_tree(bob), signal.SIGKILL)
            _signal(frozen, signal.SIGSTOP)
            placements = {"shared": _Samples(mesh, [BASELINE, "mirrored"])}
            if cores is not None:
                placements = {"apart": _Samples(mesh, _ROWS), **placements}
            for _ in range(rounds):
                for name, samples in placements.items():
                    with apart(mesh.supervisor, _NEAR, cores if name == "apart" else None):
                        await samples.add(seconds)
        finally:
            _signal(frozen, signal.SIGCONT)
            control_plane(mesh).send_signal(signal.SIGCONT)
    return {name: samples.summary() for name, samples in placements.items()}


class _Samples:
    """What was measured in one placement."""

    def __init__(self, mesh: BenchMesh, rows: Iterable[str]) -> None:
        self._mesh = mesh
        self._rows = {name: _ROWS[name] for name in rows}
        self._paths: dict[str, dict[int, list[dict[str, float]]]] = {}
        self._paces: dict[str, list[float]] = {}

    async def add(self, seconds: int) -> None:
        """One round."""
        for name, (host, environment) in self._rows.items():
            headers = {"Host": host} | ({"x-env": environment} if environment else {})
            sidecar = self._mesh.supervisor.proxies[host].pid
            for connections in CONNECTIONS:
                made, used = await _made(self._mesh), cpu_seconds(sidecar)
                found = await sampled(self._mesh.caller, headers, connections, seconds)
                requests = found["rps"] * seconds
                found["sidecar"] = (cpu_seconds(sidecar) - used) / requests * 1e6  # µs
                found["copied"] = (await _made(self._mesh) - made) / requests
                self._paths.setdefault(name, {}).setdefault(connections, []).append(found)
            self._paces.setdefault(name, []).append(await _paced(self._mesh, headers, seconds))

    def summary(self) -> dict[str, Any]:
        """Medians, quartiles, and what each is against the baseline of its round."""
        base = self._paces[BASELINE]
        paced = {
            name: {"p50": spread(found), "over": spread([one - b for one, b in zip(found, base, strict=True)])}
            for name, found in self._paces.items()
        }
        sidecars = {
            f"{name}, {connections} connections": {
                "cpu": spread([one["sidecar"] for one in found]),
                "copied": sum(one["copied"] for one in found) / len(found),
            }
            for name, by_connections in self._paths.items()
            for connections, found in by_connections.items()
        }
        return {"paths": summary(self._paths, BASELINE), "paced": paced, "sidecars": sidecars}


def text(result: dict[str, Any]) -> str:
    """All of it."""
    titles = {
        "apart": "copies; load, caller and target on cores of their own, all others (agent, laptop) on the others",
        "shared": "copies; everyone on all cores",
    }
    return "".join(
        f"\n{titles[placement]}{table.paths(found['paths'])}{paced_text(found['paced'])}{_sidecars_text(found['sidecars'])}"
        for placement, found in result.items()
    )


def paced_text(paced: dict[str, Any]) -> str:
    """The p50 of requests that come one by one, and what it is over the baseline's of the same round."""
    lines = [
        f"  {name:<45} {row['p50']['median'] * 1e3:>6.2f} ms  {row['over']['median'] * 1e3:>+6.2f} "
        f"({row['over']['low'] * 1e3:+.2f}–{row['over']['high'] * 1e3:+.2f})"
        for name, row in paced.items()
    ]
    return "\n".join(["", f"p50 at one request each {PAUSE * 1e3:.0f} ms, and over the baseline", *lines]) + "\n"


def _sidecars_text(sidecars: dict[str, Any]) -> str:
    """What the target's sidecar itself used, and how many of the requests left it in copy."""
    lines = [
        f"  {name:<45} {row['cpu']['median']:>4.0f} µs ({row['cpu']['low']:.0f}–{row['cpu']['high']:.0f})  {row['copied']:>5.0%}"
        for name, row in sidecars.items()
    ]
    return "\n".join(["", "CPU of the target's sidecar per request, and the share of requests copied", *lines]) + "\n"


_NEAR = ("caller", "target", "plain", "idle")
_ROWS = {
    "a plain sidecar": ("plain", ""),
    BASELINE: ("idle", ""),
    "mirrored": ("target", "alice"),
    "mirrored, laptop dead": ("target", "bob"),
    "mirrored, laptop frozen": ("target", "carol"),
    "mirrored, laptop slow": ("target", "dave"),
}


async def _paced(mesh: BenchMesh, headers: dict[str, str], seconds: int) -> float:
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
async def _mirror(mesh: BenchMesh, user: str, *, delay: float = 0.0) -> AsyncIterator[asyncio.subprocess.Process]:
    """`hairpin run --mode mirror` of the app, once a copy comes."""
    port = next(free_ports())
    app = [sys.executable, "-m", "bench.app", str(port), f"laptop-{user}", f"--delay={delay}"]
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
