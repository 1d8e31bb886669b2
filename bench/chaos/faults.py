"""The faults: what is killed or frozen, and when the way to the laptop is open again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil

from bench.chaos.mesh import ChaosMesh
from bench.chaos.struck import StruckMesh

M = TypeVar("M", bound=StruckMesh)
M_contra = TypeVar("M_contra", bound=StruckMesh, contravariant=True)

FROZEN_SECONDS = 5.0
"""How long the laptop's Envoy stands still."""
ASLEEP_SECONDS = 14.0
"""How long the whole laptop does: longer than its session's lease."""
SILENT_SECONDS = 1.5
"""How long requests find a rule and no tunnel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """When what happened, by the event loop's clock."""

    at: float
    """The kill, or the freeze."""
    since: float | None = None
    """From when the way back counts, if not from the kill: the thaw, the next `hairpin run`."""
    ready: float | None = None
    """When the killed program said that it was ready again."""
    no_tunnel: tuple[float, float] | None = None
    """Between these the rule was there and provably no tunnel: every request must have been answered by the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Generic[M_contra]):
    """One fault."""

    name: str
    what: str
    strike: Callable[[M_contra], Awaitable[Struck]]
    alone: bool = False
    """Whether it concerns this one laptop: another one must not be disturbed."""
    one_second: bool = False
    """Whether the laptop shall answer again within one second (p50)."""


def _now() -> float:
    return asyncio.get_running_loop().time()


def _kill(of: Callable[[M], psutil.Process]) -> Callable[[M], Awaitable[Struck]]:
    async def strike(mesh: M) -> Struck:
        victim = of(mesh)
        at = _now()
        victim.kill()
        await mesh.dead(victim)
        return Struck(at=at)

    return strike


async def _kill_cli(mesh: StruckMesh) -> Struck:
    """The developer types `hairpin run` again, one second later."""
    cli, envoy = mesh.laptop.cli, mesh.laptop.envoy
    at = _now()
    cli.kill()
    await mesh.dead(envoy)
    await mesh.laptop.ended()
    await asyncio.sleep(1)
    since = _now()
    await mesh.laptop.start()
    return Struck(at=at, since=since)


def _kill_agent(of: Callable[[ChaosMesh], psutil.Process]) -> Callable[[ChaosMesh], Awaitable[Struck]]:
    async def strike(mesh: ChaosMesh) -> Struck:
        victim, envoy = of(mesh), mesh.agent_envoy
        at = _now()
        victim.kill()
        await mesh.dead(envoy)
        return Struck(at=at, ready=await mesh.so(mesh.agent_ready, "the agent is ready again"))

    return strike


async def _kill_control_plane(mesh: ChaosMesh) -> Struck:
    """Sessions live in its memory: the laptop claims anew."""
    victim = mesh.control_plane
    at = _now()
    victim.kill()
    await mesh.dead(victim)
    return Struck(at=at, ready=await mesh.so(mesh.sessions_active, "the sessions are active again"))


async def _freeze(mesh: StruckMesh) -> Struck:
    envoy = mesh.laptop.envoy
    at = _now()
    envoy.suspend()
    try:
        await asyncio.sleep(FROZEN_SECONDS)
    finally:
        since = _now()
        envoy.resume()
    return Struck(at=at, since=since)


async def _sleep(mesh: StruckMesh) -> Struck:
    """The session's lease runs out meanwhile."""
    laptop = mesh.laptop
    frozen = [laptop.cli, laptop.envoy, laptop.process]
    at = _now()
    for process in frozen:
        process.suspend()
    try:
        await asyncio.sleep(ASLEEP_SECONDS)
    finally:
        since = _now()
        for process in frozen:
            process.resume()
    return Struck(at=at, since=since)


async def _no_tunnel(mesh: ChaosMesh) -> Struck:
    """Nobody is there to withdraw the rule, nor to start the laptop's Envoy again."""
    frozen = [mesh.control_plane, mesh.laptop.cli]
    envoy, before = mesh.laptop.envoy, await mesh.tunnels()

    async def noted() -> bool:
        return await mesh.tunnels() < before

    for process in frozen:
        process.suspend()
    try:
        at = _now()
        envoy.kill()
        await mesh.dead(envoy)
        begin = await mesh.so(noted, "the agent's Envoy takes note of the closed socket")
        await asyncio.sleep(SILENT_SECONDS)
        window = begin, _now()
    finally:
        since = _now()
        for process in frozen:
            process.resume()
    return Struck(at=at, since=since, no_tunnel=window)


LAPTOP_ENVOY: Fault[StruckMesh] = Fault(
    name="laptop-envoy",
    what="kill -9 the laptop's Envoy",
    strike=_kill(lambda m: m.laptop.envoy),
    alone=True,
    one_second=True,
)
CLI: Fault[StruckMesh] = Fault(name="cli", what="kill -9 hairpin run", strike=_kill_cli, alone=True)
FREEZE: Fault[StruckMesh] = Fault(name="freeze", what="freeze the laptop's Envoy", strike=_freeze, alone=True)
SLEEP: Fault[StruckMesh] = Fault(name="sleep", what="freeze the laptop past its lease", strike=_sleep, alone=True)
PROCESS: Fault[StruckMesh] = Fault(
    name="process", what="kill -9 the developer's process", strike=_kill(lambda m: m.laptop.process), alone=True
)
"""Those of a laptop are the same in every mesh."""

FAULTS: tuple[Fault[ChaosMesh], ...] = (
    LAPTOP_ENVOY,
    CLI,
    Fault(name="agent", what="kill -9 the agent", strike=_kill_agent(lambda m: m.agent_process), one_second=True),
    Fault(
        name="agent-envoy",
        what="kill -9 the agent's Envoy",
        strike=_kill_agent(lambda m: m.agent_envoy),
        one_second=True,
    ),
    FREEZE,
    SLEEP,
    Fault(name="no-tunnel", what="rule without tunnel", strike=_no_tunnel, alone=True),
    PROCESS,
    Fault(name="agent-sidecar", what="kill -9 the agent's sidecar", strike=_kill(lambda m: m.agent_sidecar)),
    Fault(name="control-plane", what="kill -9 the control plane", strike=_kill_control_plane),
)
