"""Tunnels kept up: dialled again when lost, and to replicas that come later."""

from __future__ import annotations

import asyncio

from hairpin.model.session import AgentAddress, Session
from local_proxy.held import Held
from local_proxy.laptop import Laptop
from local_proxy.reach import Reach, reachable

LOST_SECONDS = 0.3
"""How long a tunnel must be missing before it is dialled again: Envoy may just be at it."""
REDIAL_SECONDS = (1.0, 8.0)
"""How long a tunnel that was dialled again has to come up; each time twice as long, up to the second value."""


async def keep_tunnels(held: Held, laptop: Laptop, reach: Reach) -> None:
    """Keep a tunnel to every replica that the session names, until cancelled."""
    running: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as tasks:
        while True:
            session = held.session
            replicas = await reach.replicas(session)
            await laptop.move(replicas)
            for name in running.keys() - {agent.name for agent in replicas.agents}:
                running.pop(name).cancel()
            for agent in replicas.agents:
                if agent.name not in running:
                    running[agent.name] = tasks.create_task(_redial(held, laptop, agent.name, reach.look_seconds))
            await held.until(lambda now: _where(now) != _where(session), reach.again_seconds)  # noqa: B023 # it is awaited here


def _where(session: Session) -> tuple[object, ...]:
    return session.status.agents, session.status.egress


async def _redial(held: Held, laptop: Laptop, agent: str, look_seconds: float) -> None:
    """Make a tunnel anew that was lost, as soon as its replica is there. Envoy alone would take up to ten seconds."""

    def is_up(session: Session) -> bool:
        return agent in session.status.tunnels

    first, longest = REDIAL_SECONDS
    patience = first
    await held.until(is_up, patience)
    while True:
        await held.until(lambda session: held.watching and not is_up(session), None)
        if await held.until(is_up, LOST_SECONDS):
            patience = first
            continue
        while not await _is_there(laptop.address(agent)) or laptop.dialling():
            if await held.until(is_up, look_seconds):
                break
        if not is_up(held.session):
            laptop.redial(agent)
        patience = first if await held.until(is_up, patience) else min(2 * patience, longest)


async def _is_there(agent: AgentAddress | None) -> bool:
    return agent is not None and await reachable(agent)
