"""The controller against a real API server, as its own service account. Agents are HTTP calls; no pod runs."""

from __future__ import annotations

import pytest

from hairpin.certificates import certificate_names
from hairpin.kubernetes.installation import SYSTEM
from tests.support.controller import (
    CrashError,
    FakeAgent,
    Laptop,
    authority_of,
    controller,
    controller_api,
    install,
    reporting,
    serve_namespace,
    steered,
    workload,
)
from tests.support.envoy import eventually

ADMIN = "admin"


@pytest.fixture(scope="session")
async def installed(api_server):
    await install(api_server)
    return api_server


@pytest.fixture
async def api(installed):
    async with controller_api(installed) as api:
        yield api


@pytest.fixture
async def shop(installed, namespace):
    """A namespace with checkout, served."""
    await serve_namespace(installed, namespace)
    await workload(installed, namespace, "checkout")
    return namespace


@pytest.fixture
def laptop(installed, shop):
    return Laptop(installed.client, shop, ADMIN)


@pytest.fixture
def agent(installed, shop):
    return FakeAgent(installed, shop)


async def test_a_session_from_its_claim_to_its_end(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("alice-1")
        status = await laptop.phase("alice-1", "Pending")
        secret = await installed.client.get("Secret", "hairpin-ca", SYSTEM)
        assert status["certificateAuthority"] == authority_of(secret) == replica.authority.certificate
        assert certificate_names(status["certificate"]).dns == (f"alice-1.{shop}",)
        assert status["resolvedTarget"] and [a["name"] for a in status["agents"]] == ["hairpin-agent-0"]
        # Plumbing and an empty list of sessions are there before anything is steered.
        await installed.client.wait_for(
            "EnvoyFilter", "hairpin-plumbing-deployment-checkout-8080", bool, namespace=shop
        )
        assert await steered(installed.client, shop) == []

        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Ready")
        assert await steered(installed.client, shop) == []
        await laptop.change("alice-1", localPort=3000)
        await laptop.phase("alice-1", "Active")
        assert await steered(installed.client, shop) == [f"alice-1.{shop}"]

        await laptop.change("alice-1", localPort=None)
        await laptop.phase("alice-1", "Ready")
        assert await steered(installed.client, shop) == []
        await laptop.change("alice-1", localPort=3000)
        await laptop.phase("alice-1", "Active")
        await laptop.end("alice-1")

        async def withdrawn():
            return await steered(installed.client, shop) == []

        await eventually(withdrawn, what="the rule is withdrawn")
        assert await installed.client.get("EnvoyFilter", "hairpin-plumbing-deployment-checkout-8080", shop)
        config = await installed.client.get("ConfigMap", "hairpin-ca", shop)
        assert config["data"]["ca.pem"] == replica.authority.certificate


async def test_who_came_second_is_refused_by_the_owners_name(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("first", environment="blue")
        await laptop.phase("first", "Pending")
        await laptop.claim(
            "second", environment="blue", target={"kind": "deployment", "name": "checkout", "namespace": shop}
        )
        status = await laptop.phase("second", "Refused")
        assert not status.get("certificate")
        assert any("first" in c["message"] or ADMIN in c["message"] for c in status["conditions"])
        await laptop.claim("third", environment="green")
        await laptop.phase("third", "Pending")
        # The first one's end makes room.
        await laptop.end("first")
        status = await laptop.phase("second", "Pending")
        assert certificate_names(status["certificate"]).dns == (f"second.{shop}",)


async def test_a_lease_runs_out(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("alice-1", leaseSeconds=1, localPort=3000)
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")
        agent.report()
        status = await laptop.phase("alice-1", "Lost")
        assert not status.get("tunnels") and status["lastSeen"]
        await eventually(lambda: steered_is(installed, shop, []), what="withdrawn")
        await installed.client.wait_gone("Session", "alice-1", namespace=shop, seconds=25)


async def test_a_match_that_envoy_refuses_is_refused_by_name_and_takes_nobody_down(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("good", localPort=3000)
        agent.report(f"good.{shop}")
        await laptop.phase("good", "Active")
        match = {"header": {"name": "x-user", "regex": "(?=look)ahead"}}
        await laptop.claim("bad", environment="other", match=match)
        status = await laptop.phase("bad", "Refused")
        assert any("Envoy" in condition["message"] for condition in status["conditions"])
        assert not status.get("certificate")
        fine = {"header": {"name": "x-user", "regex": "a+b"}}
        await laptop.claim("fine", environment="third", match=fine, localPort=3001)
        await laptop.phase("fine", "Pending")
        agent.report(f"good.{shop}", f"fine.{shop}")
        await laptop.phase("fine", "Active")
        assert await steered(installed.client, shop) == [f"fine.{shop}", f"good.{shop}"]


async def test_what_is_deleted_or_changed_by_hand_is_mended(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("alice-1", localPort=3000)
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")
        for name in ("sessions", "plumbing"):
            full = f"hairpin-{name}-deployment-checkout-8080"
            before = await installed.client.get("EnvoyFilter", full, shop)
            await installed.client.delete("EnvoyFilter", full, shop)

            async def again(before=before, full=full):
                found = await installed.client.get("EnvoyFilter", full, shop)
                return (
                    found and found["metadata"]["uid"] != before["metadata"]["uid"] and found["spec"] == before["spec"]
                )

            await eventually(again, what=f"{full} is back")
        full = "hairpin-sessions-deployment-checkout-8080"
        await installed.client.patch("EnvoyFilter", full, {"spec": {"configPatches": []}}, namespace=shop)
        await eventually(lambda: steered_is(installed, shop, [f"alice-1.{shop}"]), what="the edit is undone")
        await installed.client.delete("ConfigMap", "hairpin-ca", shop)
        await installed.client.wait_for("ConfigMap", "hairpin-ca", lambda c: c["data"]["ca.pem"], namespace=shop)


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


@pytest.mark.parametrize("writes", range(9))
async def test_killed_before_any_write_it_leaves_nothing_that_a_restart_does_not_mend(
    installed, api, laptop, agent, writes
):
    """A session is claimed, steered and another one ended: the controller dies before the write of this number."""
    shop = laptop.namespace
    await laptop.claim("ends", environment="gone", leaseSeconds=1)
    await laptop.claim("alice-1", localPort=3000)
    agent.report(f"alice-1.{shop}")
    died = False
    try:
        async with controller(api, shop, crash_at=writes) as replica, reporting(agent, replica):
            await laptop.phase("alice-1", "Active")
    except* CrashError:
        died = True
    assert died or writes > 5
    async with controller(api, shop) as replica, reporting(agent, replica):
        status = await laptop.phase("alice-1", "Active")
        assert certificate_names(status["certificate"]).dns == (f"alice-1.{shop}",)
        await laptop.phase("ends", "Pending")
        await laptop.end("ends")
        await eventually(lambda: steered_is(installed, shop, [f"alice-1.{shop}"]), what="steered")
        for part in ("EnvoyFilter", "Session"):
            names = sorted(o["metadata"]["name"] for o in await installed.client.list(part, shop))
            expected = {
                "EnvoyFilter": [
                    "hairpin-plumbing-deployment-checkout-8080",
                    "hairpin-sessions-deployment-checkout-8080",
                ],
                "Session": ["alice-1"],
            }
            assert names == expected[part]
        assert not replica.executor.problems


async def test_a_hundred_sessions_are_one_object(installed, api, shop, laptop, agent):
    names = [f"s-{number}" for number in range(100)]
    async with controller(api, shop) as replica, reporting(agent, replica):
        agent.report(*(f"{name}.{shop}" for name in names))
        for name in names:
            await laptop.claim(name, environment=name, localPort=3000)
        for name in names:
            await laptop.phase(name, "Active", seconds=40)
        assert await steered(installed.client, shop) == sorted(f"{name}.{shop}" for name in names)
        plumbing = await installed.client.get("EnvoyFilter", "hairpin-plumbing-deployment-checkout-8080", shop)
        await installed.client.delete_all("Session", shop)
        await eventually(lambda: steered_is(installed, shop, []), what="all withdrawn")
        after = await installed.client.get("EnvoyFilter", "hairpin-plumbing-deployment-checkout-8080", shop)
        # The listener's part never changed.
        assert plumbing["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


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


async def steered_is(server, namespace: str, names: list[str]) -> bool:
    return await steered(server.client, namespace) == names
