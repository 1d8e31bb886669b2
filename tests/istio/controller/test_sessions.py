"""Sessions from claim to end, against a real API server. Agents are HTTP calls; no pod runs."""

from __future__ import annotations

import pytest

from hairpin.certificate_reading import certificate_names
from hairpin.kubernetes.installation import SYSTEM
from tests.istio.controller.conftest import ADMIN
from tests.support.controller import authority_of, controller, reporting, steered, steered_is
from tests.support.envoy import eventually


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
        assert "RE2" in str(status["conditions"])
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


@pytest.mark.timeout(300)  # a hundred times a filter is judged by a process of its own
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
