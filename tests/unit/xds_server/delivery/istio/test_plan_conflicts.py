"""Who holds what, in plans: age, refusals that heal, lost sessions that make room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.xds_server.delivery.istio.shop import (
    at,
    conditions,
    phases,
    planned,
    reported,
    service,
    session,
    settle,
    shop,
    steered,
    workload,
)
from xds_server.model.cluster import Key


def test_the_older_session_holds_and_the_newer_is_told_by_whom():
    world = settle(shop(session("b", owner="bob", seconds=1), session("a", owner="alice")))
    assert phases(world) == {"a": "Pending", "b": "Refused"}
    message = conditions(world, "b")["Held"]
    assert "shop/deployment/checkout:8080" in message and "by alice in session a" in message
    assert not next(s for s in world.sessions if s.key.name == "b").status.certificate


def test_of_the_same_second_the_first_by_name_holds():
    world = settle(shop(session("b", owner="bob"), session("a", owner="alice")))
    assert phases(world) == {"a": "Pending", "b": "Refused"}


@pytest.mark.parametrize(
    ("other", "phase"),
    [
        (session("b", "bob"), "Pending"),
        (session("b", "alice", owner="bob", target="cart"), "Pending"),
        (session("b", None, owner="bob", target=None), "Pending"),
        (session("b", "alice", owner="bob", match="header x-a=1"), "Refused"),  # contained
        (session("b", None, owner="bob", match="header x-env"), "Refused"),  # contains
        (session("b", None, owner="bob", target="deployment/checkout", match="header x-env=alice"), "Refused"),
        (session("b", None, owner="bob", match="header x-b=1"), "Pending"),  # overlaps: told
        (session("b", "alice", owner="alice"), "Refused"),  # their own, at work
    ],
)
def test_what_stands_beside_a_session(other, phase):
    world = shop(session("a", "alice"), replace(other, created=at(1)))
    world = replace(world, services=(*world.services, service("cart")), workloads=(*world.workloads, workload("cart")))
    world = settle(world)
    assert phases(world) == {"a": "Pending", "b": phase}
    if other.spec.match and phase == "Pending":
        assert "alice" in conditions(world, "b")["Overlap"]


def test_a_service_and_a_workload_behind_it_conflict():
    wide = session("a", target="x"), session("b", owner="bob", seconds=1, target="deployment/x2")
    workloads = [workload(n, labels={"app": "x", "v": n}) for n in ("x1", "x2")]
    world = settle(shop(*wide, services=(service("x"),), workloads=workloads))
    assert phases(world) == {"a": "Pending", "b": "Refused"}


def test_a_refused_session_is_reconsidered_when_the_holder_is_gone():
    world = settle(shop(session("a", owner="alice"), session("b", owner="bob", seconds=1)))
    world = settle(replace(world, sessions=world.sessions[1:]), at(2))
    assert phases(world) == {"b": "Pending"} and world.sessions[0].status.certificate


def test_a_refused_session_ends_when_its_laptop_does_not_come():
    world = settle(reported(settle(shop(session("a", owner="alice"), session("b", owner="bob", seconds=1))), "a"))
    assert planned(world, at(2)).next == at(31)
    assert set(planned(world, at(31)).end) == {Key("shop", "b")}


def test_who_came_meanwhile_keeps_what_an_older_refused_session_wants():
    old = session("a", owner="alice", match="header x-a=1", target="deployment/checkout")
    blocked = settle(shop(old, workloads=()))
    assert phases(blocked) == {"a": "Refused"}
    new = session("b", "alice", owner="bob", seconds=5)
    world = replace(blocked, workloads=(workload("checkout"), workload("b", labels={"app": "b"})))
    held = settle(replace(world, sessions=[settle(shop(new)).sessions[0], *blocked.sessions]))
    assert phases(held) == {"b": "Pending", "a": "Refused"}


def lost(owner: str = "alice"):
    """A world in which session `a` has been steered and its tunnel is gone."""
    up = settle(reported(settle(shop(session("a", owner=owner))), "a"))
    return settle(reported(up), at(1))


def test_a_lost_session_makes_room_for_its_owners_next():
    world = lost()
    world = replace(world, sessions=[*world.sessions, session("b", owner="alice", seconds=2)])
    made = planned(world, at(2))
    assert set(made.end) == {Key("shop", "a")} and made.certify == {Key("shop", "b")}
    assert phases(settle(world, at(2))) == {"b": "Pending"}


def succeeded(new, second: float = 50):
    """`a` was steered when its laptop and the leader were killed; `new` came, and no replica of the agent has reported yet."""
    up = settle(reported(settle(shop(session("a", owner="alice"))), "a"))
    return replace(up, sessions=[*up.sessions, new], reports={}, leading_since=at(second))


def test_a_new_leader_refuses_nobody_whose_own_session_may_be_lost():
    new = session("b", owner="alice", seconds=49)
    world = settle(succeeded(new), at(50))
    assert new in world.sessions  # nothing is written
    made = planned(world, at(50))
    assert not made.end and made.next == at(65)
    # The agent says that the tunnel is gone: there is room. Or that it is up: someone is at work.
    assert phases(settle(reported(world), at(51))) == {"b": "Pending"}
    assert phases(settle(reported(world, "a"), at(51))) == {"a": "Active", "b": "Refused"}
    # It says nothing in time.
    assert phases(settle(world, at(66))) == {"b": "Pending"}


def test_a_new_leader_refuses_anybody_else_at_once():
    world = settle(succeeded(session("b", owner="bob", seconds=49)), at(50))
    assert phases(world) == {"a": "Active", "b": "Refused"}


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (session("b", owner="bob", seconds=2), "nobody else's"),
        (session("b", "bob", owner="alice", seconds=2), "other requests"),
        (session("b", owner="alice", seconds=2, target="nowhere"), "refused anyway"),
    ],
)
def test_a_lost_session_stays_for_anyone_else(new, why):
    world = lost()
    world = settle(replace(world, sessions=[*world.sessions, new]), at(2))
    assert phases(world)["a"] == "Lost", why


def test_a_lost_session_stays_when_another_refuses_the_next():
    up = shop(session("a", "alice", match="header x-a=1"), session("c", "alice", owner="carol", match="header x-a=2"))
    world = settle(reported(settle(reported(settle(up), "a", "c")), "c"), at(1))
    assert phases(world) == {"a": "Lost", "c": "Active"}
    world = settle(replace(world, sessions=[*world.sessions, session("b", "alice", seconds=2)]), at(2))
    assert phases(world) == {"a": "Lost", "c": "Active", "b": "Refused"}


def test_a_session_that_was_refused_once_takes_nothing_from_a_lost_one():
    world = settle(reported(settle(shop(session("a"), session("b", owner="alice", seconds=1))), "a"))
    assert phases(world) == {"a": "Active", "b": "Refused"}
    assert phases(settle(reported(world), at(2))) == {"a": "Lost", "b": "Refused"}


def test_two_environments_in_one_deployment_are_steered_side_by_side():
    world = settle(shop(session("a", "alice"), session("b", "bob", seconds=1)))
    world = settle(reported(world, "a", "b"))
    assert list(steered(world).values()) == [["a.shop", "b.shop"]]
    world = settle(reported(world, "b"))
    assert list(steered(world).values()) == [["b.shop"]] and phases(world) == {"a": "Lost", "b": "Active"}
