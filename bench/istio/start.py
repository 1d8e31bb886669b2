"""How long a developer waits in a real mesh: from the command to the first steered request, and on what."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil

from bench.istio.mesh import FRESH, HELD, SERVED, IstioBench, eventually
from bench.paths import spread
from hairpin.kubernetes.api import Api, connect
from hairpin.kubernetes.kinds import ENVOY_FILTERS, SESSIONS, Kind
from tests.support.istio_mesh import LaptopRun, operator
from xds_server.delivery.istio.objects import policies

USER = "alice"
MOMENTS = {
    "said where": "Python, imports, kubeconfig",
    "created": "the Session is created",
    "certified": "its certificate",
    "tunnels": "the tunnels",
    "told": "the process is started and listens",
    "rule": "the rule is an EnvoyFilter",
    "steered": "the sidecar has it",
}
"""What is waited for, by the moment that ends the wait, in order."""
_TAKES = "takes the requests"
"""What the developer reads when the rule is in the API server."""


class Timeline:
    """When each moment first came."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.moments: dict[str, float] = {}
        self.cpu = 0.0
        """Seconds of `hairpin run`'s own, until the first steered request."""

    def note(self, moment: str) -> None:
        """It is now, if it has not been before."""
        self.moments.setdefault(moment, time.perf_counter() - self.began)

    async def is_whole(self) -> bool:
        """Whether all moments came."""
        return self.moments.keys() >= {*MOMENTS, _TAKES}

    def steps(self) -> dict[str, float]:
        """Seconds that each wait added; one that was over before its predecessor added none."""
        steps, until = {}, 0.0
        for moment, what in MOMENTS.items():
            at = max(self.moments[moment], until)
            steps[what], until = at - until, at
        return steps


async def measure(bench: IstioBench, rounds: int, first_uses: int) -> dict[str, Any]:
    """Session starts with the plumbing in place, and without.

    Args:
        bench: the mesh.
        rounds: starts with the plumbing in place.
        first_uses: starts on a workload that has none.
    """
    result: dict[str, Any] = {}
    await operator(bench.cluster, "enable", f"deployment/{HELD}", "-n", SERVED)
    async with connect(kubeconfig=str(bench.cluster.kubeconfig())) as api:
        starts = [await _start(bench, api, HELD) for _ in range(rounds)]
        result["plumbing in place"] = _summary(starts)
        starts = []
        for _ in range(first_uses):
            starts.append(await _start(bench, api, FRESH))
            await operator(bench.cluster, "disable", f"deployment/{FRESH}", "-n", SERVED)
            await bench.served_by("cluster", FRESH, USER)
        if starts:
            result["first use of a workload"] = _summary(starts)
    return result


def table(result: dict[str, Any]) -> str:
    """As text."""
    lines = []
    for title, found in result.items():
        lines += ["", f"session start, {title} ({found['rounds']} rounds)"]
        rows = {
            "first steered request": found["total"],
            **found["steps"],
            "from “takes the requests” until then": found["gap"],
            "CPU of `hairpin run` until then": found["cpu"],
        }
        rows |= {"given back after Ctrl-C": found["end"]}
        for name, row in rows.items():
            indent = "    " if name in found["steps"] else "  "
            spread_text = f"({row['low'] * 1e3:.0f}–{row['high'] * 1e3:.0f})"
            lines.append(f"{indent}{name:<{40 - len(indent)}} {row['median'] * 1e3:>6.0f} ms {spread_text}")
    return "\n".join(lines) + "\n"


def _summary(starts: list[tuple[Timeline, float]]) -> dict[str, Any]:
    steps = [timeline.steps() for timeline, _ in starts]
    return {
        "rounds": len(starts),
        "total": spread([timeline.moments["steered"] for timeline, _ in starts]),
        "steps": {name: spread([step[name] for step in steps]) for name in steps[0]},
        "gap": spread([max(0.0, timeline.moments["steered"] - timeline.moments[_TAKES]) for timeline, _ in starts]),
        "cpu": spread([timeline.cpu for timeline, _ in starts]),
        "end": spread([end for _, end in starts]),
    }


async def _start(bench: IstioBench, api: Api, service: str) -> tuple[Timeline, float]:
    async with _watching(api) as timeline:
        async with bench.run(USER, service) as run:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_said(run, timeline))
                await bench.served_by(f"laptop-{USER}", service, USER)
                timeline.note("steered")
                timeline.cpu = sum(psutil.Process(run.pid).cpu_times()[:2])
            await eventually(timeline.is_whole, "the API server told what happened")
            begin = time.perf_counter()
            run.signal(signal.SIGINT)
            await bench.served_by("cluster", service, USER)
            end = time.perf_counter() - begin
            await run.ended()
        return timeline, end


async def _said(run: LaptopRun, timeline: Timeline) -> None:
    await run.said("context ")
    timeline.note("said where")
    await run.said(_TAKES)
    timeline.note(_TAKES)


@contextlib.asynccontextmanager
async def _watching(api: Api) -> AsyncIterator[Timeline]:
    """The API server's side of it."""
    watches = [(kind, await api.list(kind, namespace=SERVED)) for kind in (SESSIONS, ENVOY_FILTERS)]
    timeline = Timeline()
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(_watch(api, kind, found["metadata"]["resourceVersion"], timeline))
            for kind, found in watches
        ]
        yield timeline
        for task in running:
            task.cancel()


async def _watch(api: Api, kind: Kind, version: str, timeline: Timeline) -> None:
    async for event in api.watch(kind, namespace=SERVED, version=version):
        if event.type not in ("ADDED", "MODIFIED"):
            continue
        if kind is ENVOY_FILTERS:
            if policies(event.object):
                timeline.note("rule")
            continue
        timeline.note("created")
        spec, status = event.object["spec"], event.object.get("status", {})
        agents = {agent["name"] for agent in status.get("agents", [])}
        for moment, there in {
            "certified": status.get("certificate"),
            "tunnels": agents and agents <= set(status.get("tunnels", [])),
            "told": spec.get("localPort"),
        }.items():
            if there:
                timeline.note(moment)
