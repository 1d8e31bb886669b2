"""A user's VirtualService, DestinationRule and EnvoyFilter say the same of requests that a session holds as of all others."""

from __future__ import annotations

import re

import pytest

from tests.support.istio_mesh import SHOP
from tests.support.mesh import eventually
from tests.support.users_objects import (
    another_checkout,
    destination_rule,
    lua_filter,
    route,
    virtual_service,
)

pytestmark = [pytest.mark.timeout(240)]

V1, V2, LAPTOP = "checkout", "checkout-v2", "laptop of alice"
WHO = {"alice": LAPTOP, None: V2}
"""Whose requests are whose, where the weights are 0 and 100."""
RETRIES = {"attempts": 2, "retryOn": "5xx"}
NONE = {"attempts": 0}


def weighted(first, second):
    """Routes of which the last goes by weights, and the others to v2: for an environment, a timeout, without retries."""
    return virtual_service(
        route({"v2": 100}, match={"headers": {"x-env": {"exact": "bob"}}}),
        route({"v2": 100}, match={"uri": {"prefix": "/delay"}}, timeout="3s", retries=NONE),
        route({"v2": 100}, match={"headers": {"x-retries": {"exact": "none"}}}, retries=NONE),
        route({"v2": 100}, match={"uri": {"prefix": "/failing"}}, retries=RETRIES),
        route({"v2": 100}, match={"uri": {"prefix": "/count"}}),
        route({"v1": first, "v2": second}, retries=RETRIES, timeout="10s"),
    )


@pytest.fixture(scope="module")
async def routing(mesh):
    """checkout-v2 beside checkout, another's EnvoyFilter, and alice's laptop that takes their requests."""
    objects = destination_rule("v1", "v2"), weighted(0, 100), lua_filter("someone-elses")
    async with another_checkout(mesh, V2, "v2", *objects):
        await mesh.answered_by(V2, None)
        await mesh.answered_by(V2, "bob")
        async with mesh.laptop("alice", "alice"):
            yield mesh


async def request(mesh, environment, path, **more):
    """One request, whatever its status."""
    headers = {**({"x-env": environment} if environment else {}), **more.pop("headers", {})}
    return await (await mesh.caller()).request(f"http://checkout{path}", headers=headers, **more)


async def executions(mesh, key):
    """How often a request with this key reached the laptop's process, and checkout-v2's."""
    found = [await mesh.ask(environment, path=f"/count?key={key}") for environment in WHO]
    return {answer["who"]: answer["count"] for answer in found}


async def claimed(mesh):
    """How many requests each version's sidecars have found to be a session's."""
    counts = {}
    for version in ("v1", "v2"):
        texts = [await pod.envoy("/stats?filter=hairpin_.shadow_allowed") for pod in await pods(mesh, version)]
        counts[version] = sum(int(number) for text in texts for number in re.findall(r"_8080;?\..*: (\d+)", text))
    return counts


async def pods(mesh, version):
    return await mesh.cluster.pods(SHOP, f"app=checkout,version={version}")


async def test_weights_hold_for_all_and_the_laptop_is_behind_every_subset(routing):
    mesh = routing
    async with mesh.traffic("alice") as steered:
        await mesh.cluster.client.apply(weighted(100, 0))
        await mesh.answered_by(V1, None)
        await eventually(lambda: only(mesh, "v1"), "alice's requests come by v1's sidecars alone")
        await mesh.cluster.client.apply(weighted(20, 80))

        async def both():
            return {(await mesh.ask())["who"] for _ in range(8)} == {V1, V2}

        await eventually(both, "both subsets answer")
        unmatched = [(await mesh.ask())["who"] for _ in range(60)]
        assert {V1, V2} == set(unmatched)
        assert unmatched.count(V1) < unmatched.count(V2)
        await mesh.cluster.client.apply(weighted(0, 100))
        await mesh.answered_by(V2, None)
        await eventually(lambda: only(mesh, "v2"), "alice's requests come by v2's sidecar alone")
        # By its header, whatever the weights are.
        assert {(await mesh.ask("bob"))["who"] for _ in range(8)} == {V2}
    assert set(steered) == {LAPTOP}


async def only(mesh, version):
    """Whether alice's requests reach the laptop by this version's sidecars and no other's."""
    before = await claimed(mesh)
    answers = [await mesh.ask("alice") for _ in range(10)]
    after = await claimed(mesh)
    assert {answer["who"] for answer in answers} == {LAPTOP}
    assert {answer["response_headers"]["x-someone"] for answer in answers} == {"else"}
    more = {name: after[name] - before[name] for name in after}
    return more.pop(version) >= len(answers) and set(more.values()) == {0}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("environment", ["alice", None])
@pytest.mark.parametrize("asked", [True, False])
async def test_a_retry_happens_if_it_is_asked_for_and_where_the_first_try_was(routing, environment, method, asked):
    """Else a failure of the process's is the answer, and nobody else is asked."""
    key, times = f"{environment}-{method}-{asked}", 2 if asked else 1
    headers = {"x-request-key": key, **({} if asked else {"x-retries": "none"})}
    response = await request(routing, environment, "/failing", method=method, headers=headers)
    assert (response.status, response.who) == (200 if asked else 503, WHO[environment])
    assert response.headers["x-someone"] == "else"
    assert await executions(routing, key) == {who: times if who == WHO[environment] else 0 for who in WHO.values()}


async def test_a_timeout_ends_a_request_wherever_it_is_and_reaches_nobody_else(routing):
    for environment, who in WHO.items():
        key = f"late-{environment}"
        response = await request(routing, environment, "/delay?ms=9000", headers={"x-request-key": key})
        assert response.status == 504
        assert await executions(routing, key) == {other: int(other == who) for other in WHO.values()}
        assert (await routing.ask(environment, path="/delay?ms=10"))["who"] == who


async def test_outlier_detection_takes_the_processs_failures_for_the_pods(routing):
    """The caller's sidecar sees no difference, and docs/kubernetes.md says so. It lasts as long as the rule says."""
    detection = {"consecutive5xxErrors": 3, "interval": "1s", "baseEjectionTime": "3s", "maxEjectionPercent": 100}
    pool = {"http": {"http1MaxPendingRequests": 10, "maxRequestsPerConnection": 5}}
    rule = destination_rule("v1", "v2", policy={"outlierDetection": detection, "connectionPool": pool})
    once = {"x-retries": "none"}

    async def ejected():
        for _ in range(3):
            await request(routing, "alice", "/status?code=500", headers=once)
        response = await request(routing, None, "/", headers=once)
        return response.status == 503 and "no healthy upstream" in response.text

    async def back():
        answers = [await request(routing, environment, "/", headers=once) for environment in ("alice", None)]
        return [answer.status for answer in answers] == [200, 200] and [a.who for a in answers] == [LAPTOP, V2]

    await routing.cluster.client.apply(rule)
    try:
        await eventually(ejected, "the only pod of checkout-v2 is out of the caller's choice")
        await eventually(back, "it is back")
    finally:
        await routing.cluster.client.apply(destination_rule("v1", "v2"))
