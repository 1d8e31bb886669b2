"""Latency, throughput and CPU of each way a request can take in a real mesh, as ratios to a sidecar as Istio makes it."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import psutil

from bench import paths
from bench.istio.mesh import HELD, PLAIN, IstioBench, controllers, proxies_cpu, request_headers
from bench.wrk import wrk
from hairpin.errors import HairpinError

BASELINE = "plain sidecar"
OTHER = "zoe"
"""An environment that nobody holds."""


async def measure(bench: IstioBench, rounds: int, seconds: float) -> dict[str, Any]:
    """All paths, one after another in each round.

    Args:
        bench: the mesh.
        rounds: how many.
        seconds: of load per path, number of connections and round.
    """
    samples: dict[str, dict[int, list[dict[str, float]]]] = {}
    async with (
        bench.run("alice", HELD) as alice,
        bench.run("bob", HELD, "--port-forward", "kubectl") as bob,
        bench.run("carol", HELD) as carol,
    ):
        for run in (alice, bob, carol):
            await run.said("takes the requests")
        with _frozen():
            _kill(carol.pid)
            await bench.served_by("cluster", HELD, "carol")
            for _ in range(rounds):
                for name, (service, environment, who) in PATHS.items():
                    async with bench.client() as session:
                        found = await bench.who(session, service, environment)
                    if found != who:
                        raise HairpinError(f"{name}: {found} answered, not {who}: nothing to measure")
                    for connections in paths.CONNECTIONS:
                        sample = await _sample(bench, service, environment, connections, seconds)
                        samples.setdefault(name, {}).setdefault(connections, []).append(sample)
    return paths.summary(samples, BASELINE)


PATHS: dict[str, tuple[str, str | None, str]] = {
    BASELINE: (PLAIN, None, "cluster"),
    "plain sidecar, a header": (PLAIN, OTHER, "cluster"),
    "plumbing alone": ("none", None, "cluster"),
    "plumbing alone, a header": ("none", OTHER, "cluster"),
    "1 session": ("one", None, "cluster"),
    "1 session, another's header": ("one", OTHER, "cluster"),
    "100 sessions": ("many", None, "cluster"),
    "100 sessions, another's header": ("many", OTHER, "cluster"),
    "steered": (HELD, "alice", "laptop-alice"),
    "steered, kubectl port-forward": (HELD, "bob", "laptop-bob"),
    "dead laptop, falls back": (HELD, "carol", "cluster"),
}
"""What is asked for, and who has to answer."""


async def _sample(
    bench: IstioBench, service: str, environment: str | None, connections: int, seconds: float
) -> dict[str, float]:
    headers = request_headers(service, environment)
    before = proxies_cpu()
    url = f"http://{bench.addresses[service]}/"
    load = await wrk(url, connections=connections, seconds=seconds, headers=headers, inside=bench.inside)
    if load.failed:
        raise HairpinError(f"{load.failed} of {load.requests} requests to {service} with {headers} failed")
    used = proxies_cpu() - before
    return {"rps": load.per_second, "p50": load.p50, "p99": load.p99, "cpu": used / load.requests * 1e6}


@contextlib.contextmanager
def _frozen() -> Any:
    """The controller stands still: nobody withdraws a dead laptop's rule, so that each of its requests tries it first."""
    stopped = controllers()
    if not stopped:
        raise HairpinError("no controller runs")
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)


def _kill(pid: int) -> None:
    tree = psutil.Process(pid)
    for process in [*tree.children(recursive=True), tree]:
        with contextlib.suppress(psutil.Error):
            process.kill()
