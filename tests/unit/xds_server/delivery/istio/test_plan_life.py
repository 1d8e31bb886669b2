"""A session's life in plans: certified, steered, lost, ended; and what a restart or a hand does to it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from hairpin.model.session import Mode
from tests.unit.xds_server.delivery.istio.shop import (
    AGENT_0,
    AGENT_1,
    NOON,
    agent,
    at,
    changed,
    conditions,
    done,
    phases,
    planned,
    reported,
    session,
    settle,
    shop,
    steered,
)
from xds_server.delivery.istio.world import PlanSettings, PublishedAddress
from xds_server.model.cluster import Key

PLUMBING, SESSIONS = (
    Key("shop", "hairpin-plumbing-deployment-checkout-8080"),
    "hairpin-sessions-deployment-checkout-8080",
)


def active(*names: str, **more):
    """A shop in which these sessions have settled as Active."""
    sessions = [session(name, name.partition("-")[0], **more) for name in names]
    return settle(reported(settle(shop(*sessions)), *names))


def test_a_new_session_is_certified_and_the_plumbing_written_before_any_tunnel():
    world = shop(session("alice-1"))
    first = planned(world)
    assert first.certify == {Key("shop", "alice-1")}
    assert [key.name for key in first.apply] == [SESSIONS, PLUMBING.name]
    world = settle(world)
    assert phases(world) == {"alice-1": "Pending"} and steered(world) == {SESSIONS: []}
    status = world.sessions[0].status
    assert status.id == "alice-1.shop" and status.resolved_target == "shop/deployment/checkout:8080"
    assert status.agent_identity == "spiffe://cluster.local/ns/shop/sa/hairpin-agent"
    assert status.certificate and status.certificate_authority == "the CA\n"
    [address] = status.agents
    assert (address.name, address.host, address.tunnel_port, address.egress_port) == ("hairpin-agent-0", "", 9443, 9444)


def test_copies_come_by_a_filter_of_their_own_beside_who_takes_the_same_requests():
    mirror = session("bob-1", "alice", owner="bob", seconds=1, mode=Mode.MIRROR)
    world = settle(reported(settle(shop(session("alice-1"), mirror)), "alice-1", "bob-1"))
    assert phases(world) == {"alice-1": "Active", "bob-1": "Active"}
    patches = world.filters[Key("shop", SESSIONS)]["spec"]["configPatches"]
    values = [patch["patch"]["value"] for patch in patches]
    assert {value["name"]: list(value["typedConfig"]["shadowRules"]["policies"]) for value in values} == {
        "hairpin.match.8080": ["alice-1.shop"],
        "hairpin.mirror.8080": ["bob-1.shop"],
    }


def test_two_sessions_cant_have_copies_of_the_same_requests():
    first, second = (session(name, seconds=n, mode=Mode.MIRROR) for n, name in enumerate(("alice-1", "alice-2")))
    world = settle(reported(settle(shop(first, second)), "alice-1"))
    assert phases(world) == {"alice-1": "Active", "alice-2": "Refused"}
    [refused] = [condition for condition in world.sessions[1].status.conditions if condition.reason == "Refused"]
    assert refused.type == "Held" and "the copies of requests" in refused.message


def test_plumbing_of_another_version_is_written_anew_once_and_said():
    world = active("alice-1")
    old = copy.deepcopy(dict(world.filters))
    old[PLUMBING]["spec"]["configPatches"].pop()
    world = replace(world, filters=old)
    made = planned(world)
    assert list(made.apply) == [PLUMBING]
    [said] = [remark for remark in made.remarks if "written anew" in remark]
    assert said.startswith("plumbing shop/hairpin-plumbing-deployment-checkout-8080")
    assert not planned(settle(world)).apply


def test_steered_when_the_tunnel_is_up_and_active_when_that_is_written():
    world = reported(settle(shop(session("alice-1"))), "alice-1")
    made = planned(world)
    assert made.statuses[Key("shop", "alice-1")].phase == "Ready"
    world = done(world, made, NOON)
    assert steered(world) == {SESSIONS: ["alice-1.shop"]}
    world = settle(world)
    assert phases(world) == {"alice-1": "Active"} and planned(world).settled


@pytest.mark.parametrize(
    ("change", "phase"),
    [
        (lambda world: changed(world, "alice-1", spec_local_port=None), "Ready"),
        (reported, "Lost"),
        (lambda world: replace(world, pods=(*world.pods, agent(1))), "Ready"),
        (lambda world: changed(world, "alice-1", certificate_end=at(-1), request_key=""), "Ready"),
        (lambda world: replace(world, pods=[p for p in world.pods if p.key != AGENT_0]), "Lost"),
    ],
    ids=["nothing listens", "no tunnel", "a replica without a tunnel", "certificate over", "no agent"],
)
def test_withdrawn_at_once_when_something_is_gone_and_back_with_it(change, phase):
    before = active("alice-1")
    world = settle(change(before))
    assert (phases(world), steered(world)) == ({"alice-1": phase}, {SESSIONS: []})
    again = replace(before, sessions=world.sessions, filters=world.filters)
    again = changed(again, "alice-1", spec_local_port=5000, certificate_end=at(600), request_key="key-of-alice-1")
    assert phases(settle(again)) == {"alice-1": "Active"}


def test_a_tunnel_to_every_ready_replica_is_needed_and_said():
    world = replace(active("alice-1"), pods=(agent(0), agent(1), agent(2, ready=False)))
    world = settle(reported(world, by=AGENT_1))
    assert phases(world) == {"alice-1": "Ready"}
    assert "hairpin-agent-1 yet" in conditions(world, "alice-1")["TunnelMissing"]
    assert [a.name for a in world.sessions[0].status.agents] == [f"hairpin-agent-{n}" for n in range(3)]
    world = settle(reported(world, "alice-1", by=AGENT_1))
    assert phases(world) == {"alice-1": "Active"} and not conditions(world, "alice-1")


@pytest.mark.parametrize(
    ("lease", "tunnel", "ends"), [(10, True, 10), (60, True, 60), (10, False, 30), (60, False, 60)]
)
def test_ends_when_its_lease_has_run_out_or_it_never_came_up(lease, tunnel, ends):
    world = settle(shop(session("alice-1", lease=lease)))
    if tunnel:
        world = settle(reported(settle(reported(world, "alice-1"))))
    made = planned(world)
    assert made.next == at(ends)
    assert planned(world, at(ends - 0.1)).end == {}
    ended = planned(world, at(ends))
    assert set(ended.end) == {Key("shop", "alice-1")} and not ended.statuses
    assert settle(world, at(ends)).sessions == []


def test_the_lease_counts_from_the_loss_and_nothing_puts_it_off():
    world = settle(reported(active("alice-1")), at(100))
    world = settle(changed(world, "alice-1", spec_local_port=6000), at(105))
    assert planned(world, at(105)).next == at(110)
    back = settle(reported(world, "alice-1"), at(109))
    assert phases(back) == {"alice-1": "Active"} and planned(back, at(10_000)).end == {}


def test_while_the_agent_is_away_no_lease_runs_out():
    world = active("alice-1")
    gone = settle(replace(world, pods=world.pods[1:], reports={}), at(1))
    assert phases(gone) == {"alice-1": "Lost"} and planned(gone, at(500)).end == {}
    assert "no agent" in conditions(gone, "alice-1")["NoAgent"]
    back = reported(replace(gone, pods=(replace(agent(0), ready_since=at(500)), *world.pods[1:])))
    assert planned(back, at(509)).end == {} and planned(back, at(510)).end


def test_operators_bound_leases():
    settings = PlanSettings(certificate_authority="the CA\n", longest_lease=at(20) - NOON)
    world = settle(shop(session("alice-1", lease=3600), settings=settings))
    assert "20 seconds, not 3600" in conditions(world, "alice-1")["LeaseBounded"]
    assert planned(world).next == at(30)


def test_a_new_leader_believes_the_last_status_until_replicas_have_reported():
    world = replace(active("alice-1"), reports={}, leading_since=at(50))
    made = planned(world, at(50))
    assert made.settled and made.next == at(65)
    assert phases(settle(world, at(64))) == {"alice-1": "Active"}
    assert phases(settle(world, at(65))) == {"alice-1": "Lost"}
    assert phases(settle(reported(world), at(51))) == {"alice-1": "Lost"}


def test_deadlines_that_passed_while_nobody_led_count_from_the_new_leader():
    lost = settle(reported(active("alice-1")), at(1))
    assert planned(replace(lost, leading_since=at(500)), at(514)).end == {}
    assert planned(replace(lost, leading_since=at(500)), at(515)).end
    new = shop(session("alice-1"), leading_since=at(500))
    assert planned(new, at(529)).end == {} and planned(new, at(530)).end


@pytest.mark.parametrize(
    "change",
    [{"request_key": "another"}, {"certificate_end": NOON}, {"certificate_key": "", "certificate_end": None}],
    ids=["a new key", "over", "none"],
)
def test_a_certificate_is_signed_when_it_is_wanted(change):
    world = changed(active("alice-1"), "alice-1", **change)
    assert planned(world).certify == {Key("shop", "alice-1")}
    world = settle(world)
    assert planned(world).certify == frozenset() and phases(world) == {"alice-1": "Active"}


def test_another_ca_signs_anew():
    world = replace(active("alice-1"), settings=PlanSettings(certificate_authority="a new CA\n"))
    assert planned(world).certify == {Key("shop", "alice-1")}
    assert settle(world).sessions[0].status.certificate_authority == "a new CA\n"


def test_a_request_that_is_not_there_yet_is_waited_for():
    assert planned(shop(session("alice-1", request_key=""))).certify == frozenset()


def test_without_the_admission_policy_nothing_is_certified_or_written():
    world = settle(shop(session("alice-1"), admission_policy=False))
    made = planned(world)
    assert not made.certify and not world.filters and phases(world) == {"alice-1": "Pending"}
    assert "policy" in conditions(world, "alice-1")["NoAdmissionPolicy"] and made.remarks
    assert not world.sessions[0].status.certificate_authority
    # What was certified before stays.
    assert planned(replace(active("alice-1"), admission_policy=False)).apply == {}


def test_a_match_with_a_regular_expression_is_validated_first():
    world = shop(session("alice-1", None, match="header x-a~'a.*'"))
    made = planned(world)
    assert len(made.validate) == 1 and not made.certify and not made.apply
    [match] = made.validate
    refused = settle(replace(world, judged={match: "spec.match is refused by Envoy: no"}))
    assert phases(refused) == {"alice-1": "Refused"} and not refused.filters
    assert conditions(refused, "alice-1") == {"BadMatch": "spec.match is refused by Envoy: no"}
    good = settle(replace(world, judged={match: ""}))
    assert phases(good) == {"alice-1": "Pending"} and steered(good) == {SESSIONS: []}


def test_after_a_restart_a_certified_match_stays_steered_while_it_is_validated_again():
    world = settle(reported(settle(shop(session("alice-1", None, match="header x-a~'a.*'"))), "alice-1"))
    made = planned(replace(world, judged={}))
    assert made.validate and not made.apply and made.statuses[Key("shop", "alice-1")].phase == "Active"


def test_a_session_that_is_being_deleted_is_gone():
    made = planned(changed(active("alice-1"), "alice-1", deleting=True))
    assert not made.statuses and not made.end and [key.name for key in made.apply] == [SESSIONS]


def test_objects_deleted_or_edited_by_hand_are_mended():
    world = active("alice-1")
    for key in world.filters:
        gone = replace(world, filters={k: o for k, o in world.filters.items() if k != key})
        assert settle(gone).filters == world.filters
        edited = replace(world, filters={**world.filters, key: {**world.filters[key], "spec": {"configPatches": "x"}}})
        assert settle(edited).filters == world.filters


def test_plumbing_stays_without_sessions_and_the_sessions_object_goes_only_with_it():
    world = replace(active("alice-1"), sessions=())
    world = settle(world)
    assert steered(world) == {SESSIONS: []} and PLUMBING in world.filters
    rest = {k: o for k, o in world.filters.items() if k != PLUMBING}
    assert planned(replace(world, filters=rest)).delete == (Key("shop", SESSIONS),)
    alone = {PLUMBING: world.filters[PLUMBING]}
    assert list(planned(replace(world, filters=alone)).apply) == [Key("shop", SESSIONS)]


def test_objects_for_no_workload_and_of_other_deliveries_are_deleted_plumbing_first():
    world = active("alice-1")
    ours = planned(replace(world, workloads=(), pods=world.pods[:1])).delete
    assert ours == (PLUMBING, Key("shop", SESSIONS))
    copy = {**world.filters[PLUMBING], "metadata": {**world.filters[PLUMBING]["metadata"], "name": "copy"}}
    other = {"metadata": {"labels": {"hairpin.dev/role": "outbound"}}, "spec": {}}
    filters = {**world.filters, Key("shop", "copy"): copy, Key("shop", "other"): other}
    assert planned(replace(world, filters=filters)).delete == (Key("shop", "copy"), Key("shop", "other"))
    unknown = {Key("shop", "theirs"): {"metadata": {"labels": {"hairpin.dev/role": "theirs"}}, "spec": {}}}
    assert planned(replace(world, filters={**world.filters, **unknown})).delete == ()
    bare = {"metadata": {"labels": {"hairpin.dev/role": "sessions"}}}
    assert planned(replace(world, filters={Key("shop", "x"): bare})).delete == (Key("shop", "x"),)
    assert planned(replace(world, filters={Key("elsewhere", "x"): bare})).delete == ()


def test_a_published_address_is_told():
    published = PublishedAddress(host="{pod}.{namespace}.example.com", tunnel_port=443, egress_port=444)
    world = settle(shop(session("alice-1"), settings=PlanSettings(certificate_authority="c\n", published=published)))
    [address] = world.sessions[0].status.agents
    assert address.host == "hairpin-agent-0.shop.example.com"
    assert (address.tunnel_port, address.egress_port) == (443, 444)


def test_a_session_that_cant_be_read_is_refused_and_ends_after_a_while():
    bad = replace(session("alice-1"), spec=None, problem="spec.target is missing; name one")
    world = settle(shop(bad, session("bob-1", "bob")))
    assert phases(world) == {"alice-1": "Refused", "bob-1": "Pending"}
    assert conditions(world, "alice-1") == {"Invalid": "spec.target is missing; name one"}
    assert list(planned(reported(world, "bob-1"), at(60)).end) == [Key("shop", "alice-1")]


def test_mode_egress_writes_no_rule():
    world = settle(reported(settle(shop(session("alice-1", None, target=None))), "alice-1"))
    assert phases(world) == {"alice-1": "Ready"} and not world.filters and not conditions(world, "alice-1")
