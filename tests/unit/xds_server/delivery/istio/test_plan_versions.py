"""Versions, in plans: who is refused for theirs, and what each is told of the others'."""

from __future__ import annotations

from dataclasses import replace

from hairpin.model.session import AgentAddress, SessionStatus
from hairpin.model.version import OURS, PROTOCOL, Version
from tests.unit.xds_server.delivery.istio.shop import AGENT_0, conditions, phases, planned, session, settle, shop


def of(client: Version):
    found = session("a")
    return replace(found, spec=replace(found.spec, client=client))


def test_a_laptop_of_another_protocol_is_refused_and_gets_no_certificate():
    world = settle(shop(of(Version("9.9.9", PROTOCOL + 1))))
    assert phases(world) == {"a": "Refused"}
    assert (
        f"the laptop's hairpin is 9.9.9 (protocol {PROTOCOL + 1}), the control plane's is {OURS}"
        in conditions(world, "a")["VersionSkew"]
    )
    assert not next(iter(world.sessions)).status.certificate


def test_another_version_of_the_same_protocol_is_none():
    assert phases(settle(shop(of(Version("9.9.9", PROTOCOL))))) == {"a": "Pending"}


def test_the_status_states_the_controllers_version_and_the_agents():
    [status] = planned(shop(session("a"), versions={AGENT_0: "0.9.0"})).statuses.values()
    assert (status.server, [agent.version for agent in status.agents]) == (OURS, ["0.9.0"])


def test_a_replica_that_has_not_told_this_leader_is_what_it_was():
    before = SessionStatus(
        agents=(AgentAddress(name=AGENT_0.name, host="", tunnel_port=1, egress_port=2, version="0.8.0"),)
    )
    [status] = planned(shop(session("a", status=before))).statuses.values()
    assert [agent.version for agent in status.agents] == ["0.8.0"]
