"""From targets to workloads' ports in plans: what is steered, what is refused and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hairpin.model.environment import Carrier, RoutingKey
from tests.unit.xds_server.delivery.istio.shop import (
    agent,
    conditions,
    phases,
    pod,
    service,
    session,
    settle,
    shop,
    steered,
    workload,
)
from xds_server.delivery.istio.world import PlanSettings
from xds_server.model.cluster import ContainerPort, EnvironmentFacts, EnvoyFilterFacts, Key, ServicePortFacts


def port(number: int, target: int | str | None = None, name: str = "", app_protocol: str = "") -> ServicePortFacts:
    return ServicePortFacts(number=number, name=name, target=target or number, app_protocol=app_protocol)


def points(world) -> list[str]:
    return [name.removeprefix("hairpin-sessions-") for name in steered(world)]


V1, V2 = {"app": "checkout", "version": "v1"}, {"app": "checkout", "version": "v2"}


@pytest.mark.parametrize(
    ("target", "services", "workloads", "steers"),
    [
        # a Service's port, by number, by name, the only one
        ("checkout:80", [], [], ["deployment-checkout-8080"]),
        ("checkout:http", [], [], ["deployment-checkout-8080"]),
        ("checkout", [], [], ["deployment-checkout-8080"]),
        # targetPort by name: each workload's own number
        (
            "many",
            [service("many", port(80, "http"), tier="web")],
            [
                workload("a", labels={"app": "a", "tier": "web"}),
                workload("b", labels={"app": "b", "tier": "web"}, ports=(ContainerPort(number=9000, name="http"),)),
            ],
            ["deployment-a-8080", "deployment-b-9000"],
        ),
        # every kind of workload behind it
        (
            "checkout",
            [],
            [
                workload("c", "statefulset", labels=V1),
                workload("d", "daemonset", labels=V2),
                workload("e", "rollout", labels={**V2, "x": "y"}),
            ],
            ["deployment-checkout-8080"],  # whose selector takes the others along
        ),
        (
            "split",
            [service("split", app="split")],
            [
                workload("s1", "statefulset", labels={"app": "split", "v": "1"}),
                workload("s2", "rollout", labels={"app": "split", "v": "2"}),
            ],
            ["rollout-s2-8080", "statefulset-s1-8080"],
        ),
        # a workload alone: a container's port by number, by name, the only one
        ("deployment/checkout:8080", [], [], ["deployment-checkout-8080"]),
        ("deployment/checkout:http", [], [], ["deployment-checkout-8080"]),
        ("deploy/checkout", [], [], ["deployment-checkout-8080"]),
        # one that its container does not declare, but a Service leads to
        ("deployment/plain", [service("plain")], [workload("plain", ports=())], ["deployment-plain-8080"]),
    ],
)
def test_a_target_leads_to_workloads_and_their_containers_ports(target, services, workloads, steers):
    world = shop()
    world = replace(world, services=(*world.services, *services), workloads=(*world.workloads, *workloads))
    world = settle(replace(world, sessions=[session("alice-1", target=target)]))
    assert phases(world) == {"alice-1": "Pending"}, conditions(world, "alice-1")
    assert points(world) == steers


TWO = service("two", port(80, 8080, "http"), port(9090, 9090, "grpc"))


@pytest.mark.parametrize(
    ("target", "services", "workloads", "condition", "words"),
    [
        ("chekout", [], [], "NoSuchTarget", ["no service 'chekout'", "did you mean 'checkout'"]),
        ("deployment/chekout", [], [], "NoSuchTarget", ["no deployment 'chekout'", "'checkout'"]),
        ("statefulset/checkout", [], [], "NoSuchTarget", ["deployment/checkout and service/checkout"]),
        ("zzz", [], [], "NoSuchTarget", ["there is service/checkout"]),
        ("checkout:81", [], [], "NoSuchPort", ["81", "service/checkout has 80 (http)"]),
        ("checkout:htp", [], [], "NoSuchPort", ["did you mean 'http'"]),
        ("two", [TWO], [workload("two")], "NoSuchPort", ["lacks a port", "80 (http), 9090 (grpc)"]),
        ("deployment/two", [TWO], [workload("two")], "NoSuchPort", ["lacks a port", "8080 (http), 9090"]),
        ("deployment/checkout:grpc", [], [], "NoSuchPort", ["'grpc'", "8080 (http)"]),
        ("none", [service("none", port(80, "web"))], [workload("none")], "NoSuchPort", ["'web'", "declares"]),
        ("deployment/checkout:80", [], [], "NoService", ["port 80 of Service checkout leads to 8080", "name 8080"]),
        ("deployment/checkout:9999", [], [], "NoService", ["9999", "name one of 8080"]),
        ("deployment/lone", [], [workload("lone")], "NoService", ["make a Service"]),
        ("db", [service("db", port(80, 8080, "tcp-db"))], [workload("db")], "NotHTTP", ["'tcp-db'", "not HTTP"]),
        ("db", [service("db", port(80, 8080, "mongo"))], [workload("db")], "NotHTTP", ["'mongo'"]),
        ("db", [service("db", port(80, 8080, "http", "tcp"))], [workload("db")], "NotHTTP", ["'tcp'"]),
        ("db", [service("db", port(3306, 8080))], [workload("db")], "NotHTTP", ["'3306'"]),
        ("deployment/db", [service("db", port(80, 8080, "tls"))], [workload("db")], "NotHTTP", ["'tls'"]),
        ("bare", [], [workload("bare", labels={})], "NoSuchTarget", []),
        (
            "deployment/bare",
            [service("bare", x="y")],
            [workload("bare", labels={"x": "y"}, selector={})],
            "NoSelector",
            ["no labels"],
        ),
    ],
)
def test_what_cant_be_steered_is_refused_with_what_would_help(target, services, workloads, condition, words):
    world = shop()
    world = replace(world, services=(*world.services, *services), workloads=(*world.workloads, *workloads))
    world = settle(replace(world, sessions=[session("alice-1", target=target)]))
    assert phases(world) == {"alice-1": "Refused"} and list(conditions(world, "alice-1")) == [condition]
    message = conditions(world, "alice-1")[condition]
    assert all(word in message for word in words), message
    assert not world.filters and not world.sessions[0].status.certificate


def test_a_service_without_selector_is_refused():
    external = replace(service("external"), selector={})
    world = settle(shop(session("alice-1", target="external"), services=(external,)))
    assert "without a selector" in conditions(world, "alice-1")["NoSelector"]


def test_a_target_of_another_namespace_is_refused():
    facts = session("alice-1")
    facts = replace(facts, spec=replace(facts.spec, target=replace(facts.spec.target, namespace="bank")))
    world = settle(shop(facts, namespaces=frozenset({"shop", "bank"})))
    assert "'bank'" in conditions(world, "alice-1")["Invalid"] and not world.filters


def test_a_session_without_an_owner_is_refused():
    facts = session("alice-1")
    world = settle(shop(replace(facts, spec=replace(facts.spec, owner=""))))
    assert "spec.owner" in conditions(world, "alice-1")["Invalid"]


def test_sessions_of_namespaces_that_are_not_served_are_left_alone():
    world = shop(session("alice-1"), namespaces=frozenset({"bank"}))
    assert settle(world) is world


def test_a_workload_that_appears_later_is_steered_then():
    world = settle(shop(session("alice-1", target="later"), services=(service("later"),)))
    assert phases(world) == {"alice-1": "Pending"} and not world.filters
    assert "app=later" in conditions(world, "alice-1")["NoWorkload"]
    assert world.sessions[0].status.resolved_target == "shop/service/later"
    world = settle(replace(world, workloads=(workload("later"),)))
    assert points(world) == ["deployment-later-8080"] and not conditions(world, "alice-1")


def test_a_workload_that_is_gone_has_its_session_refused_until_it_is_back():
    before = settle(shop(session("alice-1", target="deployment/checkout")))
    gone = settle(replace(before, workloads=()))
    assert phases(gone) == {"alice-1": "Refused"} and not gone.filters
    back = settle(replace(gone, workloads=before.workloads))
    assert phases(back) == {"alice-1": "Pending"} and back.filters == before.filters


def test_a_bare_pod_is_a_workload():
    labels = {"app": "solo"}
    pods = (agent(0), pod("solo", "", labels=labels, ports=(ContainerPort(number=8080),)))
    for target in ("solo", "pod/solo:8080", "pod/solo"):
        world = settle(shop(session("alice-1", target=target), services=(service("solo"),), pods=pods))
        assert points(world) == ["pod-solo-8080"], conditions(world, "alice-1")
    selector = next(iter(world.filters.values()))["spec"]["workloadSelector"]
    assert selector == {"labels": labels}


@pytest.mark.parametrize(
    ("sidecars", "phase", "words"),
    [
        ([], "Pending", None),
        ([True], "Pending", None),
        ([False], "Refused", "have no sidecar"),
        ([True, False], "Pending", "1 of 2"),
    ],
)
def test_a_workload_without_sidecar_is_refused_and_a_pod_without_told(sidecars, phase, words):
    pods = [pod(f"checkout-5d9c-{n}", "replicaset/checkout-5d9c", sidecar=s) for n, s in enumerate(sidecars)]
    world = settle(shop(session("alice-1"), pods=(agent(0), *pods)))
    assert phases(world) == {"alice-1": phase}
    message = conditions(world, "alice-1").get("NoSidecar")
    assert message is None if words is None else words in message


def test_of_several_workloads_those_with_sidecars_are_steered():
    workloads = (workload("a", labels={"app": "x", "v": "1"}), workload("b", labels={"app": "x", "v": "2"}))
    pods = (agent(0), pod("a-1-x", "replicaset/a-1", sidecar=False), pod("b-1-x", "replicaset/b-1"))
    world = settle(shop(session("alice-1", target="x"), services=(service("x"),), workloads=workloads, pods=pods))
    assert points(world) == ["deployment-b-8080"] and "not taken" in conditions(world, "alice-1")["NoSidecar"]


def test_a_selector_of_expressions_is_replaced_by_the_templates_labels():
    checkout = workload("checkout", selector=None, labels={"app": "checkout", "tier": "web"})
    world = settle(shop(session("alice-1"), workloads=(checkout,)))
    selectors = [o["spec"]["workloadSelector"]["labels"] for o in world.filters.values()]
    assert selectors == [{"app": "checkout", "tier": "web"}] * 2
    assert "matchExpressions" in conditions(world, "alice-1")["SelectedByTemplate"]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ([("shop", {"app": "checkout"}, True)], True),
        ([("shop", {}, True)], True),
        ([("istio-system", {}, True)], True),
        ([("shop", {"app": "checkout"}, False)], False),
        ([("shop", {"app": "cart"}, True)], False),
        ([("bank", {}, True)], False),
    ],
)
def test_another_envoy_filter_on_the_inbound_side_is_told(filters, told):
    foreign = [EnvoyFilterFacts(key=Key(ns, "lua"), selector=s, inbound=inbound) for ns, s, inbound in filters]
    world = settle(shop(session("alice-1"), foreign_filters=foreign))
    assert phases(world) == {"alice-1": "Pending"}
    assert ("OtherEnvoyFilter" in conditions(world, "alice-1")) is told


def test_a_port_whose_protocol_istio_detects_is_told():
    world = settle(shop(session("alice-1"), services=(service("checkout", port(80, 8080)),)))
    assert phases(world) == {"alice-1": "Pending"} and list(conditions(world, "alice-1")) == ["ProtocolDetected"]
    declared = service("checkout", port(80, 8080, "x", "kubernetes.io/h2c"))
    assert not conditions(settle(shop(session("alice-1"), services=(declared,))), "alice-1")


def test_an_environments_own_deployment_is_named():
    own = workload("checkout-alice", labels={"app": "checkout-alice"})
    for target in ("checkout", "deployment/checkout"):
        world = settle(shop(session("alice-1", target=target), workloads=(workload("checkout"), own)))
        assert "deployment/checkout-alice" in conditions(world, "alice-1")["OwnDeployment"]
        world = settle(shop(session("bob-1", "bob", target=target), workloads=(workload("checkout"), own)))
        assert not conditions(world, "bob-1")


def test_of_workloads_that_select_each_others_pods_one_has_plumbing():
    wide, narrow = workload("checkout"), workload("own", labels={"app": "checkout", "env": "bob"})
    both = (wide, narrow)
    # alone, with what it takes along told; the other is refused then
    alice = session("alice-1", target="deployment/checkout")
    bob = session("bob-1", "bob", seconds=1, target="deployment/own")
    world = settle(shop(alice, bob, workloads=both))
    assert phases(world) == {"alice-1": "Pending", "bob-1": "Refused"}
    assert "deployment/own along" in conditions(world, "alice-1")["AlsoSteers"]
    assert "deployment/checkout" in conditions(world, "bob-1")["OverlappingWorkloads"]
    # plumbing counts though its session is gone
    later = settle(replace(world, sessions=[session("bob-2", "bob", target="deployment/own")]))
    assert phases(later) == {"bob-2": "Refused"}
    alone = settle(shop(bob, workloads=both))
    assert points(alone) == ["deployment-own-8080"]
    # the other port has nothing to do with it
    grpc = service("grpc", port(90, 9090, "grpc"), env="bob", app="checkout")
    other = shop(alice, session("bob-1", "bob", target="grpc"), workloads=both)
    assert points(settle(replace(other, services=(*other.services, grpc)))) == [
        "deployment-checkout-8080",
        "deployment-own-9090",
    ]


@pytest.mark.parametrize(
    ("facts", "owner", "phase", "kind"),
    [
        (None, "alice", "Pending", ""),
        ({"members": frozenset({"alice"})}, "alice", "Pending", ""),
        ({"members": frozenset({"bob"})}, "alice", "Refused", "NotAMember"),
        ({"members": frozenset()}, "alice", "Pending", ""),
        ({"problem": "spec.routingKey is odd"}, "alice", "Refused", "BadEnvironment"),
    ],
)
def test_an_environments_members_hold_its_sessions(facts, owner, phase, kind):
    environments = [EnvironmentFacts(name="alice", **facts)] if facts else []
    world = settle(shop(session("alice-1", owner=owner), environments=environments))
    assert phases(world) == {"alice-1": phase} and list(conditions(world, "alice-1")) == ([kind] if kind else [])


@pytest.mark.parametrize("target", ["service/checkout:80", None])
@pytest.mark.parametrize("facts", [None, {}, {"routing_key": RoutingKey(Carrier.BAGGAGE, "env")}])
def test_the_status_says_what_marks_the_environments_requests(facts, target):
    environments = [EnvironmentFacts(name="alice", **facts)] if facts is not None else []
    settings = PlanSettings(certificate_authority="the CA\n", routing_key=RoutingKey(Carrier.HEADER, "x-mesh"))
    world = settle(shop(session("a", target=target), environments=environments, settings=settings))
    assert world.sessions[0].status.routing_key == (facts or {}).get(
        "routing_key", RoutingKey(Carrier.HEADER, "x-mesh")
    )
    # It has a certificate, so the laptop, which waits for that, has read it.
    assert world.sessions[0].status.certificate


def test_a_session_without_an_environment_has_no_routing_key():
    asked = session("a", environment=None, match="header x-user=42", owner="alice")
    assert settle(shop(asked)).sessions[0].status.routing_key is None


def test_the_targets_identity_needs_an_agent_that_has_it():
    asked = session("alice-1", identity="target")
    account = workload("checkout", service_account="checkout")
    impostor = agent(0, "checkout", service_account="hairpin-agent")
    world = settle(shop(asked, workloads=(account,), pods=(agent(0), impostor)))
    assert phases(world) == {"alice-1": "Refused"}
    assert "hairpin install --identity checkout" in conditions(world, "alice-1")["NoIdentityAgent"]
    world = settle(shop(asked, workloads=(account,), pods=(agent(0), agent(0, "checkout"), agent(1, "checkout"))))
    status = world.sessions[0].status
    assert [a.name for a in status.agents] == ["hairpin-agent-0"]
    assert [(a.name, a.port) for a in status.egress] == [(f"hairpin-agent-as-checkout-{n}", 9444) for n in (0, 1)]
    assert status.egress_identity == "spiffe://cluster.local/ns/shop/sa/checkout"


@pytest.mark.parametrize("target", [None, "many"])
def test_the_targets_identity_must_be_one(target):
    workloads = [workload(n, labels={"app": n, "t": "m"}, service_account=n) for n in ("a", "b")]
    asked = session("alice-1", identity="target", target=target)
    world = settle(shop(asked, workloads=workloads, services=(service("many", t="m"),)))
    assert list(conditions(world, "alice-1")) == ["NoIdentityAgent"]
