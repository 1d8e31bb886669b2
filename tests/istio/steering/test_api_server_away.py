"""The API server is away for longer than a lease: laptops' tunnels and watches go through it, and are back by themselves."""

from __future__ import annotations

import asyncio
import os
import re

import psutil
import pytest

from hairpin.kubernetes.installation import CONTROLLER, SYSTEM
from hairpin.model.mesh import AGENT
from tests.support.cluster.processes import words_of
from tests.support.istio_mesh import SHOP, followed
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(300)]

CLUSTER, ME, INVENTORY = "checkout", "laptop of alice", "inventory"
AWAY_SECONDS = float(os.environ.get("HAIRPIN_AWAY_SECONDS", "25"))
"""More than a session's lease, the controllers' own, the longest pause between two tries, and a dead connection's 10 s."""
BACK_SECONDS = 60.0
"""How long all may take to be as before once the API server is back. Its watchers wait up to half a minute for it."""
MOST_LINES = 7
"""Of hairpin's own: the API server away; with two replicas, two tunnels lost and up again; a session that takes its place, and
what it says of sidecars that don't have it yet."""


async def test_an_api_server_that_is_away_costs_failed_calls_and_one_line(mesh):
    programs, place = mesh.cluster.programs, await mesh.caller()

    async def laptop_answers():
        answer = await asked(place)
        return answer["who"] == ME and answer["next"]["who"] == INVENTORY

    async def cluster_answers():
        return (await asked(place))["who"] == CLUSTER

    async with mesh.laptop("alice", "alice", following=f"http://{INVENTORY}/") as run:
        await eventually(laptop_answers, "the laptop answers, and calls the next service")
        start, pid, hairpin = len(run.errors), run.pid, psutil.Process(run.pid)
        [command] = [p for p in hairpin.children(recursive=True) if "tests.support.cluster.app" in words_of(p)[:3]]
        async with mesh.traffic() as others, mesh.traffic("alice") as steered:
            try:
                await asyncio.to_thread(programs["kube-apiserver"].kill)
                await eventually(cluster_answers, "the cluster answers")
                await asyncio.sleep(AWAY_SECONDS)
                assert await cluster_answers()
            finally:
                programs.again("kube-apiserver")
            back = asyncio.get_running_loop().time()
            await eventually(laptop_answers, "the laptop answers again, and calls", seconds=BACK_SECONDS)
            print(f"answers again {asyncio.get_running_loop().time() - back:.1f} s after the API server's start")
        # Whoever comes next finds the cluster's own parts as they were, and istiod watching.
        for namespace, name in ((SYSTEM, CONTROLLER), (SHOP, AGENT), (SHOP, INVENTORY), (SHOP, CLUSTER)):
            await followed(mesh.cluster, namespace, name)
        await another_session_is_served(mesh)
        await mesh.answered_by(ME, "alice")
        lines = [line for line in run.errors[start:] if line.startswith("hairpin ") and not re.search("-> |<- ", line)]
        print(*lines, sep="\n")
        assert set(others) == {CLUSTER}, others
        assert set(steered) <= {ME, CLUSTER}, steered
        assert (run.pid, command.is_running()) == (pid, True)
        [_] = [line for line in lines if "can't be reached" in line]
        assert len([line for line in lines if "takes its place" in line]) <= 1, lines
        assert len(lines) <= MOST_LINES, lines


async def asked(place):
    """The answer to a request of alice's environment. `mesh.ask` would ask the API server for the pod first."""
    response = await place.request("http://checkout/", headers={"x-env": "alice"})
    assert response.status == 200, response.text
    return response.json


async def another_session_is_served(mesh):
    """One that is new: who wrote and who followed before does so again."""

    async def so():
        async with mesh.laptop("bob", "bob"):
            return True

    await eventually(so, "a new session is served", seconds=BACK_SECONDS)
