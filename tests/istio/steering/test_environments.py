"""Decentralized routing as teams have it: VirtualServices route by the header, some environments have deployments of their own."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack

import pytest

from tests.support.users_objects import another_checkout, destination_rule, lua_filter, route, virtual_service

pytestmark = [pytest.mark.timeout(240)]

OWN = "checkout-alice"
"""Environment alice's own checkout. Environment bob has none, and shares v1."""

USUAL = {"timeout": "10s", "retries": {"attempts": 2}}
VIRTUAL_SERVICE = virtual_service(
    route({"alice": 100}, match={"headers": {"x-env": {"exact": "alice"}}}, **USUAL), route({"v1": 100}, **USUAL)
)
DESTINATION_RULE = destination_rule(
    "v1", "alice", policy={"connectionPool": {"http": {"maxRequestsPerConnection": 100}}}
)


@pytest.fixture(scope="module")
async def environments(mesh):
    """The shop with routing by header, another's EnvoyFilter, and checkout-alice."""
    objects = DESTINATION_RULE, VIRTUAL_SERVICE, lua_filter("someone-elses")
    async with another_checkout(mesh, OWN, "alice", *objects):
        await mesh.answered_by(OWN, "alice")
        await mesh.answered_by("checkout", "bob")
        yield mesh


async def test_every_environment_gets_its_own_three_hops_deep(environments):
    """alice holds her environment's own checkout, bob the shared inventory: each sees only their requests, at any depth."""
    mesh = environments
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(mesh.laptop("alice", "alice", target=f"deployment/{OWN}:8080", following="http://inventory/"))
        await enter(mesh.laptop("bob", "bob", target="inventory"))
        expected = {
            "alice": ["frontend", "laptop of alice", "inventory"],
            "bob": ["frontend", "checkout", "laptop of bob"],
            None: ["frontend", "checkout", "inventory"],
            "carol": ["frontend", "checkout", "inventory"],
        }
        for environment, _ in itertools.product(expected, range(5)):
            answer = await mesh.ask(environment, host="frontend", caller="inventory")
            hops = [answer["who"], answer["next"]["who"], answer["next"]["next"]["who"]]
            assert hops == expected[environment], environment
            assert environment is None or answer["next"]["next"]["headers"]["x-env"] == environment


async def test_a_service_as_target_means_the_environments_own_deployment_too(environments):
    mesh = environments
    async with mesh.laptop("alice", "alice"), mesh.laptop("bob", "bob"):
        for environment, who in (("alice", "laptop of alice"), ("bob", "laptop of bob"), (None, "checkout")):
            assert {(await mesh.ask(environment))["who"] for _ in range(6)} == {who}
    await mesh.answered_by(OWN, "alice")
    await mesh.answered_by("checkout", "bob")


async def test_anothers_filter_still_works_for_everyone(environments):
    mesh = environments
    async with mesh.laptop("bob", "bob"):
        for environment, who in (("bob", "laptop of bob"), (None, "checkout"), ("alice", OWN)):
            answer = await mesh.ask(environment)
            assert (answer["who"], answer["headers"]["x-someone"]) == (who, "else")
            assert answer["response_headers"]["x-someone"] == "else"
