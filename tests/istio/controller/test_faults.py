"""What the controller survives: its own death at any write, another leader, namespaces and kinds that go, an API server that does."""

from __future__ import annotations

from tests.istio.controller.conftest import ADMIN
from tests.support.controller import (
    Laptop,
    controller,
    reporting,
    serve_namespace,
    steered,
    steered_is,
    workload,
)
from tests.support.envoy import eventually


async def test_another_replica_takes_over_at_once_when_the_leader_ends(installed, api, shop, laptop, agent):
    async with controller(api, shop, identity="second", lease_seconds=30) as second:
        # Whoever was first leads: made to end, the other one is there long before the lease runs out.
        async with controller(api, shop, identity="third", lease_seconds=30) as third:
            replicas = [second, third]
            await eventually(lambda: any(r.election.leading for r in replicas), what="a leader")
            first = next(r for r in replicas if r.election.leading)
            assert [r.election.leading for r in replicas].count(True) == 1
            async with reporting(agent, second, third):
                await laptop.claim("alice-1", localPort=3000)
                agent.report(f"alice-1.{shop}")
                await laptop.phase("alice-1", "Active")
                # The other replica answered that it is not the leader, or was not asked before.
                assert set(agent.statuses) <= {503}
                assert first.tunnels.tunnels
        await eventually(lambda: second.election.leading, what="the survivor leads")
        async with reporting(agent, second):
            status = await laptop.phase("alice-1", "Active")
            assert status["tunnels"] == ["hairpin-agent-0"]
            await laptop.claim("bob-1", environment="bob")
            await laptop.phase("bob-1", "Pending")
            assert await steered(installed.client, shop) == [f"alice-1.{shop}"]


async def test_a_served_namespace_that_is_deleted_holds_up_no_other(installed, api, shop, laptop, agent):
    other = await installed.new_namespace()
    await serve_namespace(installed, other)
    await workload(installed, other, "checkout")
    there = Laptop(installed.client, other, ADMIN)
    async with controller(api, shop, other, "never-made") as replica, reporting(agent, replica):
        await there.claim("there")
        await there.phase("there", "Pending")
        await installed.client.delete("Namespace", other)
        await installed.client.wait_gone("Namespace", other, seconds=40)
        await laptop.claim("alice-1", localPort=3000)
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")
        assert shop in replica.cluster.known and "never-made" not in replica.cluster.known
        assert any("never-made" in what for what in replica.cluster.problems)


async def test_while_the_api_server_is_away_it_serves_on_and_mends_afterwards(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("alice-1", localPort=3000)
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")
        installed.programs["kube-apiserver"].kill()
        await eventually(lambda: replica.cluster.problems, what="it is noticed")
        # The lease can't be renewed: it leads no longer, and forgets nothing that the informers had.
        await eventually(lambda: not replica.election.leading, what="it steps down")
        assert [session.id for session in replica.cluster.namespaces[shop].sessions] == [f"alice-1.{shop}"]
        assert f"alice-1.{shop}" in replica.egress.policies(shop, "hairpin-agent")["sessions"]
        agent.report()
        installed.programs.again("kube-apiserver")
        await eventually(lambda: replica.election.leading, what="it leads again", seconds=40)
        # What happened meanwhile is made up for.
        await laptop.phase("alice-1", "Lost", seconds=40)
        await eventually(lambda: steered_is(installed, shop, []), what="withdrawn")
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")


async def test_custom_resources_that_go_and_come_back(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("alice-1", localPort=3000)
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")
        definition = await installed.client.get("CustomResourceDefinition", "sessions.hairpin.dev")
        await installed.client.delete("CustomResourceDefinition", "sessions.hairpin.dev")
        await installed.client.wait_gone("CustomResourceDefinition", "sessions.hairpin.dev")
        # The sessions went with it, so nothing is steered; and it is said.
        await eventually(lambda: steered_is(installed, shop, []), what="withdrawn")
        await eventually(lambda: f"sessions of {shop}" in replica.cluster.problems, what="reported")
        fresh = {key: definition[key] for key in ("apiVersion", "kind", "spec")}
        await installed.client.create({**fresh, "metadata": {"name": "sessions.hairpin.dev"}})
        await installed.established()
        await eventually(lambda: f"sessions of {shop}" not in replica.cluster.problems, what="seen again")
        await laptop.claim("alice-2", localPort=3000)
        agent.report(f"alice-2.{shop}")
        await laptop.phase("alice-2", "Active")
