"""What stands in the way of steering, as Istio would see it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.xds_server.delivery.istio.shop import NOON, at, conditions, session, settle, shop, workload
from xds_server.delivery.istio.obstacles import ignores, imports, sidecar_of
from xds_server.delivery.istio.world import PlanSettings, World
from xds_server.model.cluster import EgressHosts, IstiodFacts, Key, SidecarFacts
from xds_server.sources.kubernetes.facts import istiod_facts, sidecar_facts

SETTINGS = PlanSettings(certificate_authority="")
AGENT = "hairpin-agent.shop.svc.cluster.local"
FILTERS = "envoyfilters.networking.istio.io"


def sidecar(*egress: EgressHosts, namespace: str = "shop", name: str = "default", selector=None) -> SidecarFacts:
    return SidecarFacts(key=Key(namespace, name), created=NOON, selector=selector, egress=egress or None)


@pytest.mark.parametrize(
    ("hosts", "seen"),
    [
        (["*/*"], True),
        (["./*"], True),
        (["shop/*"], True),
        (["other/*"], False),
        ([f"./{AGENT}"], True),
        ([f"*/{AGENT}"], True),
        (["./checkout.shop.svc.cluster.local"], False),
        (["./*.svc.cluster.local"], True),
        (["./*.other.svc.cluster.local"], False),
        (["~/*"], False),
        (["*/*", f"~shop/{AGENT}"], False),
        (["*/*", f"~./{AGENT}"], False),
        (["*/*", "~other/*"], True),
        ([], False),
    ],
)
def test_hosts_are_read_as_istio_reads_them(hosts, seen):
    assert imports(sidecar(EgressHosts(hosts=tuple(hosts))), SETTINGS, "shop") is seen


def test_a_listener_of_a_port_shows_services_of_that_port():
    everything = ("*/*",)
    assert imports(sidecar(EgressHosts(port=8080, hosts=everything)), SETTINGS, "shop")
    assert not imports(sidecar(EgressHosts(port=9080, hosts=everything)), SETTINGS, "shop")
    both = sidecar(EgressHosts(port=9080, hosts=everything), EgressHosts(hosts=("./*",)))
    assert imports(both, SETTINGS, "shop")
    assert imports(sidecar(), SETTINGS, "shop")


def test_which_sidecar_is_a_workloads():
    own = sidecar(name="own", selector={"app": "checkout"})
    others = sidecar(name="a-other", selector={"app": "other"})
    namespaces = sidecar(name="a-default")
    meshs = sidecar(namespace="istio-system")
    elsewhere = sidecar(namespace="elsewhere")

    def chosen(*sidecars):
        world = World(settings=SETTINGS, leading_since=NOON, namespaces=frozenset({"shop"}), sidecars=sidecars)
        return sidecar_of(world, workload("checkout"))

    assert chosen(meshs, namespaces, others, own) is own
    assert chosen(meshs, namespaces, others) is namespaces
    assert chosen(meshs, others, elsewhere) is meshs
    assert chosen(others, elsewhere) is None


@pytest.mark.parametrize(
    ("ignored", "included", "deaf"),
    [
        ("", "", False),
        (FILTERS, "", True),
        ("*.istio.io", "", True),
        ("*.istio.io, ingresses.networking.k8s.io", FILTERS, False),
        ("*.istio.io", "*.networking.istio.io", False),
        ("*.istio.io", "wasmplugins.extensions.istio.io", True),
        ("sidecars.networking.istio.io", "", False),
    ],
)
def test_what_an_istiod_ignores(ignored, included, deaf):
    istiod = IstiodFacts(key=Key("istio-system", "istiod"), ignored=ignored, included=included)
    assert ignores(istiod, FILTERS) is deaf


def test_they_are_read_from_objects():
    metadata = {"name": "x", "namespace": "shop", "creationTimestamp": "2026-01-01T12:00:00Z"}
    egress = [
        {"hosts": ["./*"], "port": {"number": 9080, "protocol": "HTTP"}},
        {"hosts": ["*/*"], "port": {"number": 9081, "protocol": "HTTP_PROXY"}},
    ]
    spec = {"workloadSelector": {"labels": {"app": "checkout"}}, "egress": egress}
    expected = EgressHosts(port=9080, hosts=("./*",)), EgressHosts(hosts=("*/*",))
    key = Key("shop", "x")
    assert sidecar_facts({"metadata": metadata, "spec": spec}) == SidecarFacts(
        key=key, created=NOON, selector={"app": "checkout"}, egress=expected
    )
    assert sidecar_facts({"metadata": metadata}) == SidecarFacts(key=key, created=NOON)
    variables = [{"name": "PILOT_IGNORE_RESOURCES", "value": FILTERS}, {"name": "POD_NAME", "valueFrom": {}}]
    template = {"spec": {"containers": [{"name": "discovery", "env": variables}]}}
    found = istiod_facts({"metadata": metadata, "spec": {"template": template}})
    assert found == IstiodFacts(key=key, ignored=FILTERS)


@pytest.mark.parametrize(("before", "told"), [(-1, True), (44, True), (46, False), (None, False)])
def test_a_session_is_told_of_connections_that_drain_since_its_point_was_plumbed(before, told):
    world = settle(shop(session("a", seconds=100)), at(100))
    key = Key("shop", "hairpin-plumbing-deployment-checkout-8080")
    metadata = dict(world.filters[key]["metadata"])
    if before is not None:
        metadata["creationTimestamp"] = at(100 - before).strftime("%Y-%m-%dT%H:%M:%SZ")
    world = replace(world, filters={**world.filters, key: {**world.filters[key], "metadata": metadata}})
    message = conditions(settle(world, at(101)), "a").get("Draining", "")
    assert bool(message) is told
    if told:
        assert "checkout:8080" in message
        assert "`hairpin enable`" in message
