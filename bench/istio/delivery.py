"""From the write of an EnvoyFilter to the sidecar that has it."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import Any

from bench.istio.mesh import CROWDS, PATIENCE, IstioBench, discovered, rules
from bench.paths import spread
from hairpin.errors import HairpinError
from hairpin.kubernetes.api import Api, connect
from hairpin.kubernetes.kinds import ENVOY_FILTERS

_POLL_SECONDS = 0.002
_generations = count(1)


async def measure(bench: IstioBench, rounds: int) -> dict[str, Any]:
    """Seconds from the request to the API server, and from its answer, to the sidecar, by the number of sessions.

    Args:
        bench: the mesh.
        rounds: how many writes of each.
    """
    written: dict[str, list[float]] = {}
    arrived: dict[str, list[float]] = {}
    async with connect(kubeconfig=str(bench.cluster.kubeconfig())) as api:
        for _ in range(rounds):
            for service, sessions in CROWDS.items():
                if not sessions:
                    continue
                write, arrival = await _change(bench, api, service, sessions)
                name = f"{sessions} session{'s' * (sessions > 1)}"
                written.setdefault(name, []).append(write)
                arrived.setdefault(name, []).append(arrival)
    return {
        **{f"{name}: written": spread(seconds) for name, seconds in written.items()},
        **{f"{name}: in the sidecar": spread(seconds) for name, seconds in arrived.items()},
    }


async def _change(bench: IstioBench, api: Api, service: str, sessions: int) -> tuple[float, float]:
    pod, generation = await bench.pod_of(service), next(_generations)
    document = rules(service, sessions, generation)
    async with pod.session() as session:
        await discovered(session)  # the connection is made
        begin = time.perf_counter()
        await api.apply(ENVOY_FILTERS, document, manager="bench")
        write = time.perf_counter() - begin
        try:
            async with asyncio.timeout(PATIENCE):
                while f"last-{generation}." not in await discovered(session):
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise HairpinError(f"the sidecar of {service} did not get its rules") from None
        return write, time.perf_counter() - begin
