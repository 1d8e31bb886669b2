"""The controller is killed before each of its writes in a session's whole life; the next one finishes what it began."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from hairpin.certificate_reading import certificate_names
from tests.support.controller import CrashError, CrashingApi, controller, steered_is, workload
from tests.support.envoy import eventually

NEVER = 10**6
FEWEST, MOST = 20, 32
"""Writes of a life: statuses that come together are one, or they are not."""
EXPECTED = {
    "PATCH envoyfilters/hairpin-sessions-deployment-checkout-8080",
    "PATCH envoyfilters/hairpin-plumbing-deployment-checkout-8080",
    "DELETE envoyfilters/hairpin-sessions-deployment-checkout-8080",
    "DELETE envoyfilters/hairpin-plumbing-deployment-checkout-8080",
    "PATCH configmaps/hairpin-ca",
    "PUT sessions/lost/status",
    "PUT sessions/alice-1/status",
    "PUT sessions/next/status",
    "DELETE sessions/lost",
}


class Controllers:
    """One controller after the other: the first dies at a write, unless it is never to."""

    def __init__(self, api, shop, agent, writes):
        self.api = CrashingApi.of(api, writes)
        self.died_at = ""
        self._shop, self._agent = shop, agent
        self._replicas = []

    @contextlib.asynccontextmanager
    async def running(self):
        await self._agent.get_token()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._run()), tasks.create_task(self._agent.run(lambda: self._replicas))]
            yield
            for task in running:
                task.cancel()

    async def _run(self):
        try:
            await self._one(self.api)
        except* CrashError as crash:
            error = crash
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.died_at = str(error)
        self.api.writes_left = NEVER
        await self._one(self.api)

    async def _one(self, api):
        async with controller(api, self._shop) as replica:
            self._replicas = [replica]
            await asyncio.Event().wait()


async def life(installed, laptop, agent, shop):
    """Two sessions are served; one is lost, and its owner's next one takes its place; the other one ends; the target goes."""
    ids = {name: f"{name}.{shop}" for name in ("lost", "alice-1", "next")}
    await laptop.claim("lost", environment="gone", localPort=3000, leaseSeconds=60)
    await laptop.claim("alice-1", localPort=3001)
    agent.report(ids["lost"], ids["alice-1"])
    for name in ("lost", "alice-1"):
        status = await laptop.phase(name, "Active")
        assert certificate_names(status["certificate"]).dns == (ids[name],)
    agent.report(ids["alice-1"])
    await laptop.phase("lost", "Lost")
    await eventually(lambda: steered_is(installed, shop, [ids["alice-1"]]), what="the lost one is withdrawn")
    await laptop.claim("next", environment="gone", localPort=3002)
    await installed.client.wait_gone("Session", "lost", namespace=shop)
    agent.report(ids["alice-1"], ids["next"])
    await laptop.phase("next", "Active")
    await laptop.end("alice-1")
    await eventually(lambda: steered_is(installed, shop, [ids["next"]]), what="the ended one is withdrawn")
    await installed.client.delete("ConfigMap", "hairpin-ca", shop)
    await installed.client.wait_for("ConfigMap", "hairpin-ca", lambda c: c["data"]["ca.pem"], namespace=shop)
    await installed.client.delete("Deployment", "checkout", shop)

    async def nothing():
        return await installed.client.list("EnvoyFilter", shop) == []

    await eventually(nothing, what="no filter is left for a workload that is gone")
    # And when it is back, all is as it was.
    await workload(installed, shop, "checkout")
    await laptop.phase("next", "Active")
    await eventually(lambda: steered_is(installed, shop, [ids["next"]]), what="steered again")


async def test_a_life_has_all_kinds_of_writes(installed, api, shop, laptop, agent):
    """What the next test kills before."""
    controllers = Controllers(api, shop, agent, NEVER)
    async with controllers.running():
        await life(installed, laptop, agent, shop)
    assert set(controllers.api.written) == EXPECTED
    assert FEWEST <= len(controllers.api.written) <= MOST, controllers.api.written


@pytest.mark.parametrize("writes", range(MOST))
async def test_killed_before_any_write_it_leaves_nothing_that_a_restart_does_not_mend(
    installed, api, laptop, agent, writes
):
    shop = laptop.namespace
    controllers = Controllers(api, shop, agent, writes)
    async with controllers.running():
        await life(installed, laptop, agent, shop)
    print(f"died before {controllers.died_at or 'none'}")
    assert controllers.died_at or writes >= FEWEST
    assert {s["metadata"]["name"] for s in await installed.client.list("Session", shop)} == {"next"}
