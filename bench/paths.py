"""Latency, throughput and CPU of each way a request can take."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from statistics import median, quantiles
from typing import Any

import psutil

from bench.mesh import BenchMesh, bench_mesh, cpu_seconds
from bench.wrk import Load, wrk
from hairpin.errors import HairpinError

BASELINE = "plain sidecar"
CONNECTIONS = (1, 16)


async def measure(rounds: int, seconds: int) -> dict[str, Any]:
    """All paths, interleaved: one after another in each round.

    Args:
        rounds: how many.
        seconds: of load per path, number of connections and round.
    """
    samples: dict[str, dict[int, list[dict[str, float]]]] = {}
    async with bench_mesh() as mesh, mesh.laptop("alice", "alice"), mesh.laptop("bob", "bob"):
        async with mesh.laptop("carol", "carol") as carol:
            await _freeze_and_kill(mesh, carol)
            try:
                for _ in range(rounds):
                    for name, (url, headers, who) in _paths(mesh).items():
                        await _expect(mesh, headers, who)
                        for connections in CONNECTIONS:
                            sample = await sampled(url, headers, connections, seconds)
                            samples.setdefault(name, {}).setdefault(connections, []).append(sample)
            finally:
                control_plane(mesh).send_signal(signal.SIGCONT)
    return summary(samples, BASELINE)


def _paths(mesh: BenchMesh) -> dict[str, tuple[str, dict[str, str], str]]:
    target = {"Host": "target"}
    return {
        "direct": (mesh.direct, {}, ""),
        BASELINE: (mesh.caller, {"Host": "plain"}, "plain"),
        "steering sidecar, unmatched": (mesh.caller, target, "cluster"),
        "another environment's header": (mesh.caller, target | {"x-env": "zoe"}, "cluster"),
        "steered to the laptop": (mesh.caller, target | {"x-env": "alice"}, "laptop-alice"),
        "dead laptop, falls back": (mesh.caller, target | {"x-env": "carol"}, "cluster"),
    }


async def _freeze_and_kill(mesh: BenchMesh, laptop: asyncio.subprocess.Process) -> None:
    """Kill a laptop while the control plane can't withdraw its rule: every request of it falls back."""
    control_plane(mesh).send_signal(signal.SIGSTOP)
    tree = psutil.Process(laptop.pid)
    for process in [*tree.children(recursive=True), tree]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    await mesh.answered_by("cluster", "carol")


def control_plane(mesh: BenchMesh) -> psutil.Process:
    """Its process."""
    pid = mesh.supervisor.control_plane.pid
    if pid is None:
        raise HairpinError("the control plane does not run")
    return psutil.Process(pid)


async def _expect(mesh: BenchMesh, headers: dict[str, str], who: str) -> None:
    if who and (found := await mesh.who(headers.get("x-env"), headers["Host"])) != who:
        raise HairpinError(f"a request with {headers} was answered by {found}, not by {who}: nothing to measure")


async def sampled(url: str, headers: dict[str, str], connections: int, seconds: int) -> dict[str, float]:
    """One row's load, once.

    Raises:
        HairpinError: a request failed.
    """
    before = cpu_seconds()
    load: Load = await wrk(url, connections=connections, seconds=seconds, headers=headers)
    if load.failed:
        raise HairpinError(f"{load.failed} requests with {headers} failed: nothing to measure")
    used = cpu_seconds() - before
    return {
        "rps": load.per_second,
        "p50": load.p50,
        "p99": load.p99,
        "cpu": used / load.requests * 1e6,  # µs
    }


def summary(samples: dict[str, dict[int, list[dict[str, float]]]], baseline: str) -> dict[str, Any]:
    """By path and number of connections: medians, quartiles, and ratios to the baseline of the same round."""
    table: dict[str, Any] = {}
    for name, by_connections in samples.items():
        for connections, values in by_connections.items():
            base = samples[baseline][connections]
            ratios = [value["rps"] / one["rps"] for value, one in zip(values, base, strict=True)]
            over = [value["p50"] - one["p50"] for value, one in zip(values, base, strict=True)]
            row = {key: spread([value[key] for value in values]) for key in ("rps", "p50", "p99", "cpu")}
            table.setdefault(name, {})[str(connections)] = {
                **row,
                "rps_ratio": spread(ratios),
                "p50_over": spread(over),
            }
    return table


def spread(values: list[float]) -> dict[str, float]:
    """The median and the quartiles."""
    low, middle, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    del middle
    return {"median": median(values), "low": low, "high": high}
