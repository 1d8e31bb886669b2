"""What is in the way of a session is a condition on it, from the real controller, and goes when it goes."""

from __future__ import annotations

import pytest

from hairpin.kubernetes.installation import CONTROLLER
from tests.support.controller import ROOT, controller, reporting, steered, workload
from tests.support.envoy import eventually

PLUMBING = "hairpin-plumbing-deployment-checkout-8080"


@pytest.fixture
async def replica(api, shop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        yield replica


@pytest.fixture
async def active(replica, laptop, agent):
    """A session that takes its requests."""
    await laptop.claim("alice-1", localPort=3000)
    agent.report(f"alice-1.{laptop.namespace}")
    await laptop.phase("alice-1", "Active")
    return laptop


async def told(laptop, kind, *, name="alice-1", phase=None):
    """A condition's message and reason, once it is there."""

    def has(session):
        status = session.get("status", {})
        found = {condition["type"] for condition in status.get("conditions", ())}
        return kind in found and (phase is None or status["phase"] == phase)

    session = await laptop.client.wait_for("Session", name, has, namespace=laptop.namespace)
    (condition,) = [c for c in session["status"]["conditions"] if c["type"] == kind]
    return condition["message"], condition.get("reason")


async def told_no_longer(laptop, kind, *, name="alice-1"):
    """The session is served, and says nothing of it any more."""

    def free(session):
        status = session.get("status", {})
        kinds = {condition["type"] for condition in status.get("conditions", ())}
        return status["phase"] == "Active" and kind not in kinds

    await laptop.client.wait_for("Session", name, free, namespace=laptop.namespace)


def istio(kind, name, namespace, spec, version="v1"):
    api_version = f"networking.istio.io/{version}"
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@pytest.mark.parametrize("where", ["shop", "root"])
async def test_anothers_filter_on_the_same_inbound_side(installed, active, shop, where):
    namespace = shop if where == "shop" else ROOT
    patch = {"applyTo": "HTTP_FILTER", "match": {"context": "SIDECAR_INBOUND"}, "patch": {"operation": "REMOVE"}}
    await installed.client.apply(
        istio("EnvoyFilter", "theirs", namespace, {"configPatches": [patch]}, "v1alpha3"),
        # Says nothing of the inbound side of checkout.
        istio(
            "EnvoyFilter",
            "harmless",
            namespace,
            {"configPatches": [{**patch, "match": {"context": "SIDECAR_OUTBOUND"}}]},
            "v1alpha3",
        ),
    )
    try:
        message, reason = await told(active, "OtherEnvoyFilter", phase="Active")
        assert f"EnvoyFilter {namespace}/theirs changes the inbound side of deployment/checkout too" in message
        assert reason == "Remark"
    finally:
        for name in ("theirs", "harmless"):
            await installed.client.delete("EnvoyFilter", name, namespace)
    await told_no_longer(active, "OtherEnvoyFilter")


@pytest.mark.usefixtures("replica")
async def test_a_port_that_no_service_selects(laptop):
    target = {"kind": "deployment", "name": "checkout", "namespace": laptop.namespace, "port": 9999}
    await laptop.claim("alice-1", target=target)
    message, reason = await told(laptop, "NoService", phase="Refused")
    assert "no port that a Service leads to" in message and "name one of 8080" in message
    assert reason == "Refused"
    assert await steered(laptop.client, laptop.namespace) is None


@pytest.mark.usefixtures("replica")
async def test_a_workload_without_sidecar(installed, laptop, shop):
    await workload(installed, shop, "bare", sidecar=False)
    await laptop.claim("alice-1", target={"name": "bare", "namespace": shop})
    message, reason = await told(laptop, "NoSidecar", phase="Refused")
    assert "the pods of deployment/bare have no sidecar; label its namespace" in message
    assert reason == "Refused"
    assert await installed.client.list("EnvoyFilter", shop) == []


@pytest.mark.parametrize("where", ["shop", "root"])
async def test_a_sidecar_resource_that_hides_the_agent(installed, active, shop, where):
    namespace = shop if where == "shop" else ROOT
    hosts = ["istio-system/*", f"./inventory.{shop}.svc.cluster.local"]
    await installed.client.apply(istio("Sidecar", "default", namespace, {"egress": [{"hosts": hosts}]}))
    try:
        # Nobody may be told that requests come when they do not.
        message, reason = await told(active, "AgentHidden", phase="Ready")
        assert f"Sidecar {namespace}/default hides the agent from deployment/checkout" in message
        assert f"add ./hairpin-agent.{shop}.svc.cluster.local to the hosts of its egress" in message
        assert reason == "Waiting"
        hosts.append(f"./hairpin-agent.{shop}.svc.cluster.local")
        await installed.client.apply(istio("Sidecar", "default", namespace, {"egress": [{"hosts": hosts}]}))
        await told_no_longer(active, "AgentHidden")
    finally:
        await installed.client.delete("Sidecar", "default", namespace)


async def test_an_istiod_that_ignores_envoy_filters(installed, active):
    def istiod(name, *, ignored="", included=""):
        variables = [
            {"name": "PILOT_IGNORE_RESOURCES", "value": ignored},
            {"name": "PILOT_INCLUDE_RESOURCES", "value": included},
        ]
        labels = {"app": "istiod", "istio.io/rev": name}
        containers = [{"name": "discovery", "image": "pilot", "env": variables}]
        spec = {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        }
        metadata = {"name": name, "namespace": ROOT, "labels": labels}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}

    try:
        await installed.client.apply(istiod("istiod", ignored="*.istio.io"))
        message, reason = await told(active, "IgnoredByIstiod", phase="Ready")
        assert f"istiod {ROOT}/istiod ignores envoyfilters.networking.istio.io" in message
        assert "PILOT_INCLUDE_RESOURCES" in message
        assert reason == "Waiting"
        # Another revision serves other sidecars, perhaps these.
        await installed.client.apply(istiod("istiod-canary"))
        await active.phase("alice-1", "Active")
        assert (await told(active, "IgnoredByIstiod"))[1] == "Remark"
        included = "envoyfilters.networking.istio.io"
        await installed.client.apply(istiod("istiod", ignored="*.istio.io", included=included))
        await told_no_longer(active, "IgnoredByIstiod")
    finally:
        for name in ("istiod", "istiod-canary"):
            await installed.client.delete("Deployment", name, ROOT)


async def may_not_write(api, namespace):
    attributes = {"verb": "patch", "resource": "envoyfilters", "group": "networking.istio.io", "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    return not answer["status"]["allowed"]


async def test_a_controller_that_may_write_no_filter(installed, api, laptop, agent, replica):
    """Its role was changed: sessions say so, and what they wait for is done when it may again."""
    shop = laptop.namespace
    role = await installed.client.get("Role", CONTROLLER, shop)
    rules = [rule for rule in role["rules"] if "envoyfilters" not in rule["resources"]]
    readable = {"apiGroups": ["networking.istio.io"], "resources": ["envoyfilters"], "verbs": ["get", "list", "watch"]}
    await installed.client.patch("Role", CONTROLLER, {"rules": [*rules, readable]}, namespace=shop)
    await eventually(lambda: may_not_write(api, shop), what="the API server has taken note")
    await laptop.claim("alice-1", localPort=3000)
    agent.report(f"alice-1.{shop}")
    message, reason = await told(laptop, "NotWritten", phase="Ready")
    assert f"EnvoyFilter {shop}/hairpin-" in message and "can't be written" in message and "forbidden" in message
    assert "ask an operator for `hairpin install`" in message
    assert reason == "Waiting"
    assert replica.executor.problems
    await installed.client.patch("Role", CONTROLLER, {"rules": role["rules"]}, namespace=shop)
    await told_no_longer(laptop, "NotWritten")
    assert await steered(installed.client, shop) == [f"alice-1.{shop}"]
    await eventually(lambda: not replica.executor.problems, what="no problem is left")
    assert await installed.client.get("EnvoyFilter", PLUMBING, shop)
