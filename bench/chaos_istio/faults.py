"""The faults in an Istio mesh: the laptop's own, and the kill of everything that is in the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.chaos.faults import CLI, FREEZE, LAPTOP_ENVOY, PROCESS, Fault, Struck
from bench.chaos_istio.mesh import IstioChaosMesh
from tests.support.cluster.pods import Pod

AWAY_SECONDS = 3.0
"""How long a killed part of the control plane stays away."""


def _kill(
    of: Callable[[IstioChaosMesh], Awaitable[Pod]], container: str
) -> Callable[[IstioChaosMesh], Awaitable[Struck]]:
    async def strike(mesh: IstioChaosMesh) -> Struck:
        pod = await of(mesh)
        at = await mesh.kill(pod, container)
        return Struck(at=at, ready=await mesh.ready_again(pod, container))

    return strike


async def _other_leads(mesh: IstioChaosMesh, killed: str) -> bool:
    return await mesh.holder() not in ("", killed)


async def _kill_leader(mesh: IstioChaosMesh) -> Struck:
    """The other replica takes its place."""
    pod, killed = await mesh.leader(), await mesh.holder()
    at = await mesh.kill(pod, "controller")
    ready = await mesh.so(lambda: _other_leads(mesh, killed), "another controller leads")
    await mesh.ready_again(pod, "controller")
    return Struck(at=at, ready=ready)


async def _kill_istiod(mesh: IstioChaosMesh) -> Struck:
    """Sidecars go on with what they have."""
    programs = mesh.cluster.programs
    at = asyncio.get_running_loop().time()
    await asyncio.to_thread(programs["istiod"].kill)
    await asyncio.sleep(AWAY_SECONDS)
    programs.again("istiod")
    return Struck(at=at, ready=await mesh.so(mesh.istiod_ready, "istiod is ready again"))


async def _run_again(mesh: IstioChaosMesh) -> None:
    """`kill -9` of `hairpin run`, which is typed again at once."""
    envoy = mesh.laptop.envoy
    mesh.laptop.cli.kill()
    await mesh.dead(envoy)
    await mesh.laptop.ended()
    await mesh.laptop.start()


async def _kill_leader_and_cli(mesh: IstioChaosMesh) -> Struck:
    """The next leader has never seen the new session, and must end the old one."""
    pod, killed = await mesh.leader(), await mesh.holder()
    at = await mesh.kill(pod, "controller")
    await _run_again(mesh)
    ready = await mesh.so(lambda: _other_leads(mesh, killed), "another controller leads")
    await mesh.ready_again(pod, "controller")
    return Struck(at=at, ready=ready)


async def _kill_istiod_and_cli(mesh: IstioChaosMesh) -> Struck:
    """Nobody can withdraw the dead laptop's rule from the sidecars, nor bring the next one's, until istiod is back."""
    programs = mesh.cluster.programs
    at = asyncio.get_running_loop().time()
    await asyncio.to_thread(programs["istiod"].kill)
    await _run_again(mesh)
    await asyncio.sleep(AWAY_SECONDS)
    since = asyncio.get_running_loop().time()
    programs.again("istiod")
    return Struck(at=at, since=since, ready=await mesh.so(mesh.istiod_ready, "istiod is ready again"))


async def _kill_api_server(mesh: IstioChaosMesh) -> Struck:
    """It forwards the laptops' ports, so they are away as long as it is."""
    programs = mesh.cluster.programs
    at = asyncio.get_running_loop().time()
    await asyncio.to_thread(programs["kube-apiserver"].kill)
    await asyncio.sleep(AWAY_SECONDS)
    programs.again("kube-apiserver")
    return Struck(at=at, ready=await mesh.so(mesh.api_server_ready, "the API server is ready again"))


FAULTS: tuple[Fault[IstioChaosMesh], ...] = (
    CLI,
    LAPTOP_ENVOY,
    FREEZE,
    PROCESS,
    Fault(name="agent", what="kill -9 the agent", strike=_kill(IstioChaosMesh.agent, "agent")),
    Fault(name="agent-sidecar", what="kill -9 the agent's sidecar", strike=_kill(IstioChaosMesh.agent, "istio-proxy")),
    Fault(name="controller", what="kill -9 the controller that leads", strike=_kill_leader),
    Fault(
        name="controller-and-cli",
        what="kill -9 that controller and hairpin run",
        strike=_kill_leader_and_cli,
        alone=True,
    ),
    Fault(name="istiod", what="kill -9 istiod", strike=_kill_istiod),
    Fault(
        name="istiod-and-cli",
        what="kill -9 istiod and hairpin run",
        strike=_kill_istiod_and_cli,
        alone=True,
    ),
    Fault(name="api-server", what="kill -9 the API server", strike=_kill_api_server),
)
