"""Election on a real Lease."""

from __future__ import annotations

import asyncio

from hairpin.kubernetes.installation import CONTROLLER, SYSTEM
from tests.support.envoy import eventually
from xds_server.model.cluster import Key
from xds_server.server.kubernetes.leader import Election

LEASE = Key(SYSTEM, CONTROLLER)


async def lead_forever() -> None:
    await asyncio.Event().wait()


async def lease(server):
    return (await server.client.get("Lease", CONTROLLER, SYSTEM))["spec"]


async def test_a_dead_holders_lease_is_taken_when_it_has_run_out(installed, api):
    await installed.client.delete("Lease", CONTROLLER, SYSTEM)
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 2, "leaseTransitions": 7}
    document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
    await installed.client.create({**document, "metadata": {"name": CONTROLLER, "namespace": SYSTEM}})
    election = Election(api, LEASE, "heir", seconds=8)  # it takes the dead one's after that one's 2
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(election.run(lead_forever))
        await eventually(lambda: election.holder == "dead", what="it sees the holder")
        assert not election.leading
        await eventually(lambda: election.leading, what="it takes the lease")
        found = await lease(installed)
        assert (found["holderIdentity"], found["leaseTransitions"]) == ("heir", 8)
        first = found["renewTime"]

        async def renewed():
            return (await lease(installed))["renewTime"] > first

        await eventually(renewed, what="it renews")
        assert (await lease(installed))["acquireTime"] == found["acquireTime"]
        task.cancel()
    # Given back: nobody has to wait.
    assert not (await lease(installed)).get("holderIdentity")


async def test_who_is_robbed_of_the_lease_stops(installed, api):
    ended = asyncio.Event()

    async def lead() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    election = Election(api, LEASE, "victim", seconds=2)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(election.run(lead))
        await eventually(lambda: election.leading, what="it leads")
        await installed.client.patch(
            "Lease", CONTROLLER, {"spec": {"holderIdentity": "robber", "leaseDurationSeconds": 60}}, namespace=SYSTEM
        )
        await eventually(ended.is_set, what="its work ends")
        await eventually(lambda: not election.leading, what="it knows")
        assert (await lease(installed))["holderIdentity"] == "robber"
        task.cancel()
    await installed.client.delete("Lease", CONTROLLER, SYSTEM)


async def test_of_many_one_leads(installed, api):
    # Nobody waits for the end of one: each gives it back.
    elections = [Election(api, LEASE, f"replica-{number}", seconds=30) for number in range(5)]
    leading = []

    def work(election):
        async def lead() -> None:
            leading.append(election)
            try:
                await asyncio.Event().wait()
            finally:
                leading.remove(election)

        return lead

    async with asyncio.TaskGroup() as tasks:
        running = {election: tasks.create_task(election.run(work(election))) for election in elections}
        for _ in elections:
            await eventually(lambda: len(leading) == 1, what="one leads")
            (leader,) = leading
            await asyncio.sleep(0.5)
            assert leading == [leader]
            running[leader].cancel()
            await eventually(lambda leader=leader: leader not in leading, what="it stops")
