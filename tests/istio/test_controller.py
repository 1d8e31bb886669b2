"""The controller against a real API server, as its own service account. Agents are HTTP calls; no pod runs."""

from __future__ import annotations

import pytest

from hairpin.certificates import certificate_names
from hairpin.kubernetes.installation import SYSTEM
from tests.support.controller import (
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
