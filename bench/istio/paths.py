"""Latency, throughput and CPU of each way a request can take in a real mesh, as ratios to a sidecar as Istio makes it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psutil

from bench import paths
from bench.istio.mesh import HELD, PLAIN, IstioBench, proxies_cpu, request_headers
from bench.wrk import wrk
from hairpin.errors import HairpinError

BASELINE = "plain sidecar"
OTHER = "zoe"
"""An environment that nobody holds."""
CAROL = "carol"
DEAD = "dead laptop, falls back"


async def measure(bench: IstioBench, rounds: int, seconds: int) -> dict[str, Any]:
    """All paths, one after another in each round.

    Args:
        bench: the mesh.
        rounds: how many.
        seconds: of load per path, number of connections and round.
    """
    samples: dict[str, dict[int, list[dict[str, float]]]] = {}
    async with bench.run("alice", HELD) as alice, bench.run("bob", HELD, "--port-forward", "kubectl") as bob:
        for run in (alice, bob):
            await run.said("takes the requests")
        for _ in range(rounds):
            for name, (service, environment, who) in PATHS.items():
                async with _dead_laptop(bench) if name == DEAD else contextlib.nullcontext():
                    await bench.served_by(who, service, environment)
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
    DEAD: (HELD, CAROL, "cluster"),
}
"""What is asked for, and who has to answer."""


async def _sample(
    bench: IstioBench, service: str, environment: str | None, connections: int, seconds: int
) -> dict[str, float]:
    headers = request_headers(service, environment)
    before = proxies_cpu()
    url = f"http://{bench.addresses[service]}/"
    load = await wrk(url, connections=connections, seconds=seconds, headers=headers, inside=bench.inside)
    if load.failed:
        raise HairpinError(f"{load.failed} of {load.requests} requests to {service} with {headers} failed")
    used = proxies_cpu() - before
    return {"rps": load.per_second, "p50": load.p50, "p99": load.p99, "cpu": used / load.requests * 1e6}


@contextlib.asynccontextmanager
async def _dead_laptop(bench: IstioBench) -> AsyncIterator[None]:
    """A rule whose laptop is dead, and that nobody withdraws: no controller runs. Each of its requests tries it first."""
    async with bench.run(CAROL, HELD) as carol:
        await carol.said("takes the requests")
        await bench.served_by(f"laptop-{CAROL}", HELD, CAROL)
        async with bench.without_controllers():
            _kill(carol.pid)
            yield
            if f"-{CAROL}-" not in await bench.rules_in_sidecar(HELD):
                raise HairpinError(f"{DEAD}: the rule went meanwhile: nothing was measured")


def _kill(pid: int) -> None:
    tree = psutil.Process(pid)
    for process in [*tree.children(recursive=True), tree]:
        with contextlib.suppress(psutil.Error):
            process.kill()
