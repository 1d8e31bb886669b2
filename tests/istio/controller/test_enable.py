"""`hairpin enable` and `disable` against a real API server. There are no sidecars here to look at: that is said, too."""

from __future__ import annotations

import pytest

from hairpin.errors import ConflictError, HairpinError, NotFoundError
from hairpin.kubernetes.api import connect
from hairpin.kubernetes.controller import controller_objects
from hairpin.model.target import Target
from tests.support.controller import controller, installation, reporting, steered_is, workload
from tests.support.envoy import eventually
from xds_server.commands.plumbing import disable, enable


@pytest.fixture
async def operator(installed, shop):
    """The operator's way to a cluster whose settings name the namespace."""
    objects = controller_objects(installation(shop))
    (settings,) = (o for o in objects if o["kind"] == "ConfigMap")
    await installed.client.apply(settings)
    async with connect(kubeconfig=str(installed.kubeconfig(namespace=shop))) as api:
        yield api


class Said(list):
    def __call__(self, line: str) -> None:
        self.append(line)

    def __contains__(self, part: object) -> bool:
        return any(str(part) in line for line in self)


async def filters(server, namespace):
    return sorted(o["metadata"]["name"] for o in await server.client.list("EnvoyFilter", namespace))


async def test_plumbing_put_on_ahead_of_time_is_what_the_controller_would_write(installed, api, operator, shop, laptop):
    said = Said()
    await enable(operator, Target("checkout", namespace=shop), say=said, seconds=1)
    assert f"{shop}/deployment/checkout:8080 got its plumbing" in said
    assert "is not known" in said  # no sidecar answers here
    names = ["hairpin-plumbing-deployment-checkout-8080", "hairpin-sessions-deployment-checkout-8080"]
    assert await filters(installed, shop) == names
    before = {o["metadata"]["name"]: o for o in await installed.client.list("EnvoyFilter", shop)}
    async with controller(api, shop) as replica:
        await laptop.claim("alice-1")
        await laptop.phase("alice-1", "Pending")
        await eventually(lambda: shop in replica.cluster.known, what="synced")
    after = {o["metadata"]["name"]: o for o in await installed.client.list("EnvoyFilter", shop)}
    # Not one write more: the listener changes once.
    assert {n: o["metadata"]["resourceVersion"] for n, o in before.items()} == {
        n: o["metadata"]["resourceVersion"] for n, o in after.items()
    }
    said = Said()
    await enable(operator, Target("checkout", "deployment", shop, 8080), say=said, seconds=1)
    assert "has its plumbing already" in said and "got its plumbing" not in said


async def test_every_workload_behind_a_service_gets_it(installed, operator, shop):
    labels = {"app": "pair", "version": "v1"}
    await workload(installed, shop, "pair-v1", labels=labels)
    await workload(installed, shop, "pair-v2", labels={**labels, "version": "v2"})
    port = {"port": 80, "name": "http", "targetPort": "http"}
    service = {"selector": {"app": "pair"}, "ports": [port]}
    await installed.client.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "pair"}, "spec": service}, namespace=shop
    )
    said = Said()
    await enable(operator, Target("pair", namespace=shop), say=said, seconds=1)
    assert len([name for name in await filters(installed, shop) if "pair" in name]) == 4
    await disable(operator, Target("pair", namespace=shop), force=False, say=said, seconds=1)
    assert await filters(installed, shop) == []


async def test_disable_refuses_while_someone_is_served_there(api, operator, shop, laptop, agent):
    installed = agent.server
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("alice-1", localPort=3000)
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")
        target, said = Target("checkout", namespace=shop), Said()
        with pytest.raises(ConflictError, match=r"in use by alice-1 of admin; .*--force"):
            await disable(operator, target, force=False, say=said, seconds=1)
        assert await steered_is(installed, shop, [f"alice-1.{shop}"])
        await disable(operator, target, force=True, say=said, seconds=1)
        assert "session" in said and "drain" in said

        async def nothing():
            return await filters(installed, shop) == [] and await installed.client.list("Session", shop) == []

        await eventually(nothing, what="nothing is left")
        # The controller finds nothing to mend.
        await laptop.claim("bob-1", environment="bob", mode="egress", target=None)
        await laptop.phase("bob-1", "Pending", "Ready")
        assert await filters(installed, shop) == []


async def test_what_can_not_be_enabled_is_said(installed, operator, shop):
    with pytest.raises(NotFoundError, match="does not serve namespace 'elsewhere'"):
        await enable(operator, Target("checkout", namespace="elsewhere"), say=Said(), seconds=1)
    with pytest.raises(HairpinError, match=r"chekout.*checkout"):
        await enable(operator, Target("chekout", namespace=shop), say=Said(), seconds=1)
    with pytest.raises(NotFoundError, match="has no plumbing in namespace"):
        await disable(operator, Target("checkout", namespace=shop), force=False, say=Said(), seconds=1)
    await workload(installed, shop, "bare", sidecar=False)
    with pytest.raises(HairpinError, match="have no sidecar"):
        await enable(operator, Target("bare", namespace=shop), say=Said(), seconds=1)
    assert await filters(installed, shop) == []
