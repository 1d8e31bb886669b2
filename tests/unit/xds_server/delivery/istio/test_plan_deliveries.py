"""The deliveries by routes, in plans: Services' ports in place of workloads', and what routes can't say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hairpin.model.delivery import Delivery
from hairpin.model.session import Mode
from tests.unit.xds_server.delivery.istio.shop import (
    at,
    conditions,
    phases,
    planned,
    pod,
    reported,
    service,
    session,
    settle,
    shop,
    workload,
)
from xds_server.delivery.istio.world import PlanSettings
from xds_server.model.cluster import Key, ServicePortFacts

BY_ROUTE = [delivery for delivery in Delivery if delivery.by_route]
OBJECTS = {
    Delivery.OUTBOUND: "hairpin-outbound-service-checkout-80",
    Delivery.WAYPOINT_HTTP_ROUTE: "hairpin-waypoint-service-checkout-80",
    Delivery.WAYPOINT_VIRTUAL_SERVICE: "hairpin-waypoint-service-checkout-80",
}


def routed(delivery, *sessions, **changes):
    return shop(*sessions, settings=PlanSettings(certificate_authority="the CA\n", delivery=delivery), **changes)


def active(delivery, *names):
    return settle(reported(settle(routed(delivery, *(session(name, name) for name in names))), *names))


@pytest.mark.parametrize("delivery", BY_ROUTE)
def test_a_sessions_life(delivery):
    waiting = settle(routed(delivery, session("alice", "alice")))
    assert phases(waiting) == {"alice": "Pending"}
    world = active(delivery, "alice", "bob")
    assert phases(world) == {"alice": "Active", "bob": "Active"}
    assert [key.name for key in world.filters] == [OBJECTS[delivery]]
    [document] = world.filters.values()
    assert document["metadata"]["annotations"]["hairpin.dev/sessions"] == "alice.shop,bob.shop"
    # A tunnel that is down has its requests go their own way.
    lost = settle(reported(world, "bob"))
    assert phases(lost) == {"alice": "Lost", "bob": "Active"}
    [document] = lost.filters.values()
    assert "alice" not in str(document["spec"]) and "bob" in str(document["spec"])
    # Routes for callers stay while there is the Service; a waypoint's go with the last session.
    ended = settle(replace(world, sessions=()))
    assert [key.name for key in ended.filters] == ([] if delivery.at_waypoint else [OBJECTS[delivery]])
    assert settle(replace(ended, services=())).filters == {}


@pytest.mark.parametrize("delivery", BY_ROUTE)
def test_a_workload_means_the_services_that_lead_there_and_a_service_itself_alone(delivery):
    ports = ServicePortFacts(number=81, name="http", target=8080)
    also = service("also", ports, app="checkout")
    world = settle(routed(delivery, session("a", target="deployment/checkout"), services=(service("checkout"), also)))
    [found] = world.sessions
    assert found.status.resolved_target == "shop/service/also:81, shop/service/checkout:80"
    world = settle(routed(delivery, session("a", target="also"), services=(service("checkout"), also)))
    assert world.sessions[0].status.resolved_target == "shop/service/also:81"


def test_two_workloads_of_one_service_meet_in_its_routes():
    v1, v2 = {"app": "checkout", "v": "1"}, {"app": "checkout", "v": "2"}
    both = (workload("one", labels=v1), workload("two", labels=v2))
    sessions = (
        session("a", "alice", target="deployment/one"),
        session("b", "alice", owner="bob", seconds=1, target="deployment/two"),
    )
    assert phases(settle(shop(*sessions, workloads=both))) == {"a": "Pending", "b": "Pending"}
    world = settle(routed(Delivery.OUTBOUND, *sessions, workloads=both))
    assert phases(world) == {"a": "Pending", "b": "Refused"}
    assert "shop/service/checkout:80" in conditions(world, "b")["Held"]


@pytest.mark.parametrize("delivery", BY_ROUTE)
def test_what_no_route_can_say_is_refused_by_name_and_takes_nobody_down(delivery):
    world = routed(delivery, session("a", "alice"), session("b", None, match="not header x-a=1", seconds=1))
    world = settle(reported(settle(world), "a"))
    assert phases(world) == {"a": "Active", "b": "Refused"}
    assert "which no route can say" in conditions(world, "b")["BadMatch"]


def test_an_http_routes_room_is_kept():
    names = [f"s{number:02}" for number in range(15)]
    world = routed(Delivery.WAYPOINT_HTTP_ROUTE, *(session(name, name) for name in names), session("t", seconds=1))
    world = settle(reported(settle(world), *names))
    assert phases(world) == {**dict.fromkeys(names, "Active"), "t": "Refused"}
    assert "15 sessions" in conditions(world, "t")["TooManySessions"]
    # Whose place is free is the next one's.
    world = settle(replace(world, sessions=[s for s in world.sessions if s.key.name != "s00"]))
    assert phases(world)["t"] == "Pending"


def test_the_targets_sidecar_is_of_no_matter_where_it_does_not_steer():
    pods = (*shop().pods[:1], pod("checkout-5d9c-x", "replicaset/checkout-5d9c", sidecar=False))
    assert phases(settle(shop(session("a"), pods=pods))) == {"a": "Refused"}
    assert phases(settle(routed(Delivery.OUTBOUND, session("a"), pods=pods))) == {"a": "Pending"}


@pytest.mark.parametrize("delivery", BY_ROUTE)
def test_a_change_of_the_delivery_takes_out_what_was_written_before(delivery):
    settings = PlanSettings(certificate_authority="the CA\n", delivery=delivery)
    before = settle(reported(settle(shop(session("a"))), "a"))
    assert len(before.filters) == 2
    world = settle(replace(before, settings=settings))
    assert [key.name for key in world.filters] == [OBJECTS[delivery]]
    assert phases(world) == {"a": "Active"}


def test_defaults_that_the_api_server_adds_are_no_difference():
    world = active(Delivery.WAYPOINT_HTTP_ROUTE, "alice")
    [(key, document)] = world.filters.items()
    rules = [
        {**rule, "backendRefs": [{**ref, "weight": 1} for ref in rule["backendRefs"]]}
        for rule in document["spec"]["rules"]
    ]
    world = replace(world, filters={key: {**document, "spec": {**document["spec"], "rules": rules}}})
    assert planned(world, at(1)).settled
    fewer = {**document, "spec": {**document["spec"], "rules": rules[1:]}}
    assert list(planned(replace(world, filters={key: fewer})).apply) == [
        Key("shop", OBJECTS[Delivery.WAYPOINT_HTTP_ROUTE])
    ]


@pytest.mark.parametrize("delivery", BY_ROUTE)
def test_routes_make_no_copies(delivery):
    world = settle(routed(delivery, session("alice-1", mode=Mode.MIRROR)))
    [refused] = [c for c in world.sessions[0].status.conditions if c.reason == "Refused"]
    assert refused.type == "NoMirror"
    assert (
        delivery.value in refused.message
        and "spec.mode: 'mirror'" in refused.message
        and "use steal" in refused.message
    )
