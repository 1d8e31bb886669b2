"""As whom a session's calls arrive, where STRICT mutual TLS is on and the callee lets in the target's account alone."""

from __future__ import annotations

import aiohttp
import pytest

from hairpin.model.mesh import AGENT
from tests.support.istio_mesh import SHOP, install
from tests.support.mesh import eventually

pytestmark = [pytest.mark.timeout(240)]

CLUSTER, LAPTOP = "checkout", "laptop of alice"
SPIFFE = "spiffe://cluster.local/ns/shop/sa/"
INVENTORY = "http://inventory/"
IN_A_ROW = 12
"""Requests, on connections that a sidecar spreads over its workers, each of which keeps its own to inventory."""
DRAINED_SECONDS = 90
AS_TARGET = ("run", "--env", "alice", "--target", "deployment/checkout:web", "-n", SHOP, "--identity", "target")
CHECKOUT_ALONE = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "checkout-alone", "namespace": SHOP},
    "spec": {
        "selector": {"matchLabels": {"app": "inventory"}},
        "action": "ALLOW",
        "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/checkout"]}}]}],
    },
}


@pytest.fixture
async def guarded(mesh):
    """The mesh, where inventory takes requests of checkout's account and of nobody else."""
    await mesh.cluster.client.apply(CHECKOUT_ALONE)

    async def holds():
        refused = await (await mesh.caller()).request(INVENTORY)
        return (refused.status, refused.text) == (403, "RBAC: access denied")

    try:
        await eventually(holds, "frontend is refused by inventory")
        yield mesh
    finally:
        await mesh.cluster.client.delete("AuthorizationPolicy", "checkout-alone", SHOP)
        # Connections that sidecars keep stay under it until they are drained, for 45 s: the next test's calls would be refused.
        callers = [await mesh.caller(), *await mesh.cluster.pods(SHOP, f"app.kubernetes.io/name={AGENT}")]

        async def answers_everyone():
            return {(await caller.request(INVENTORY)).status for caller in callers for _ in range(IN_A_ROW)} == {200}

        await eventually(answers_everyone, "inventory answers everyone again", seconds=DRAINED_SECONDS)


async def refused_by_name(mesh) -> None:
    """There is no agent under the target's account: the session is refused, and the field is named with a remedy."""
    refused = await mesh.command("alice", *AS_TARGET, "--", "true")
    assert refused.process.returncode == 2
    problem = "needs an agent that runs as service account checkout of shop, and there is none"
    assert f"--identity: 'target' {problem}" in refused.error
    assert "`hairpin install --identity checkout`" in refused.error


async def test_calls_arrive_as_the_target_where_an_operator_allows_it(guarded):
    await refused_by_name(guarded)
    await install(guarded.cluster, "--identity", "checkout")
    try:
        own = await guarded.ask()
        assert (own["who"], own["next"]["who"]) == (CLUSTER, "inventory")
        async with guarded.laptop("alice", "alice", "--identity", "target", following=INVENTORY) as run:
            answers = [await guarded.ask("alice") for _ in range(20)]
            # The lines come from the steering agents, which its calls don't pass.
            await run.said(r"-> GET checkout/ 200 \d+ ms")
        for answer in answers:
            assert (answer["who"], answer["next"]["who"]) == (LAPTOP, "inventory")
            # As the target's own call does.
            for called in (answer["next"], own["next"]):
                assert f"URI={SPIFFE}checkout" in called["headers"]["x-forwarded-client-cert"]
        async with guarded.laptop("bob", "bob", following=INVENTORY) as run:
            answers = [await guarded.ask("bob") for _ in range(20)]
            await run.said(r"<- inventory:80 \(10\.[\d.]+\) \d+ B out, ")
        assert {(answer["who"], answer["next"]) for answer in answers} == {("laptop of bob", "RBAC: access denied")}
    finally:
        await install(guarded.cluster)
    # What an operator takes back is taken back.
    assert await guarded.cluster.client.get("StatefulSet", "hairpin-agent-as-checkout", SHOP) is None
    await refused_by_name(guarded)


async def test_nobody_comes_in_plain_text(guarded):
    [strict] = await guarded.cluster.client.list("PeerAuthentication", "istio-system")
    assert strict["spec"]["mtls"]["mode"] == "STRICT"
    assert await guarded.cluster.client.list("PeerAuthentication", SHOP) == []
    pod = await guarded.cluster.pod(SHOP, "app=inventory")
    for url in ("http://inventory.shop/", f"http://{pod.ip}:9090/"):
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)) as refused:
            await guarded.cluster.outside.request(url)
        # The sidecar is there, and hangs up.
        assert not isinstance(refused.value, aiohttp.ClientConnectorError)
