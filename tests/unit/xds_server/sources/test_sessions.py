"""The table of sessions: claims, tunnels, phases, leases. The clock is the test's."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from hairpin.certificate_reading import certificate_names
from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.errors import ConflictError, InvalidFieldError, NotFoundError
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.model.match_text import parse_match
from hairpin.model.mesh import AGENT
from hairpin.model.session import AgentAddress, Mode, Phase, SessionSpec
from hairpin.model.target import Target
from hairpin.model.version import OURS
from xds_server.sources.sessions import Change, SessionTable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_, REQUEST = new_key_and_request()
AUTHORITY = CertificateAuthority.create("test")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
def table() -> SessionTable:
    document = {
        "services": {
            "checkout": {"ports": [{"port": 80}, {"name": "grpc", "port": 9090}]},
            "plain": {"steerable": False},
        },
        "agents": {"replicas": 2},
    }
    mesh = mesh_from_document(document, itertools.count(20000))
    agents = tuple(
        AgentAddress(name=agent.name, host="127.0.0.1", tunnel_port=agent.tunnel.port, egress_port=agent.egress.port)
        for agent in mesh.agents
    )
    return SessionTable(mesh, AUTHORITY, agents=agents, agent_identity=mesh.identity(AGENT))


def spec(environment: str | None = "alice", **more) -> SessionSpec:
    fields = {"target": Target("checkout", port=80), "environment": environment, "certificate_request": REQUEST} | more
    return SessionSpec(**fields)


def served(table: SessionTable) -> list[str]:
    return [session.name for session, _ in table.active("checkout", 80)]


def bring_up(table: SessionTable, name: str, seconds: float = 1) -> None:
    table.report("hairpin-agent-0", frozenset({name}), at(seconds))
    table.patch(name, at(seconds), local_port=8080)


def test_a_new_session_is_certified_and_serves_nothing(table):
    session = table.create("alice", spec(), NOON)
    assert session.owner == "alice" and session.status.phase is Phase.PENDING
    assert session.status.resolved_target == "default/checkout:80"
    names = certificate_names(session.status.certificate)
    assert tuple(names.dns) == (session.name,) and not names.uris
    assert served(table) == []


def test_a_lost_session_makes_room_for_its_owners_next(table):
    lost = table.create("alice", spec(), NOON).name
    bring_up(table, lost)
    table.report("hairpin-agent-0", frozenset(), at(2))
    with pytest.raises(ConflictError):
        table.create("bob", spec(), at(3))  # nobody else may have it before its lease runs out
    told = []
    table.listeners.append(lambda change, session: told.append((change, session.name)))
    new = table.create("alice", spec(), at(4)).name
    assert [session.name for session in table.sessions] == [new]
    assert told == [(Change.DELETED, lost), (Change.ADDED, new)]


@pytest.mark.parametrize("tunnel", [True, False])
def test_a_session_that_is_up_or_not_yet_up_makes_no_room(table, tunnel):
    first = table.create("alice", spec(), NOON).name
    if tunnel:
        bring_up(table, first)
    with pytest.raises(ConflictError):
        table.create("alice", spec(), at(2))
    assert [session.name for session in table.sessions] == [first]


def test_a_lost_session_of_other_requests_stays(table):
    lost = table.create("alice", spec(), NOON).name
    bring_up(table, lost)
    table.report("hairpin-agent-0", frozenset(), at(2))
    other = table.create("alice", spec("carol"), at(3)).name
    assert [session.name for session in table.sessions] == [lost, other]


def test_served_while_its_tunnel_is_up_and_its_process_listens(table):
    name = table.create("alice", spec(), NOON).name
    table.report("hairpin-agent-0", frozenset({name}), at(1))
    assert table.get(name).status.phase is Phase.READY and served(table) == []
    table.patch(name, at(2), local_port=8080)
    assert served(table) == [name]
    table.patch(name, at(3), local_port=None)
    assert served(table) == []
    table.patch(name, at(4), local_port=8080)
    table.report("hairpin-agent-0", frozenset(), at(5))
    assert table.get(name).status.phase is Phase.LOST and served(table) == []
    table.report("hairpin-agent-0", frozenset({name}), at(6))
    assert served(table) == [name]


def test_served_only_when_every_replica_that_reports_has_its_tunnel(table):
    name = table.create("alice", spec(), NOON).name
    bring_up(table, name)
    table.report("hairpin-agent-1", frozenset(), at(2))
    assert served(table) == []
    table.report("hairpin-agent-1", frozenset({name}), at(3))
    assert served(table) == [name]
    table.agent_gone("hairpin-agent-0", at(4))
    assert served(table) == [name] and table.connected_agents == {"hairpin-agent-1"}


def test_ends_when_its_lease_has_run_out_after_its_tunnel(table):
    name = table.create("alice", spec(lease_seconds=10), NOON).name
    bring_up(table, name)
    assert table.next_deadline() is None
    table.report("hairpin-agent-0", frozenset(), at(100))
    assert table.next_deadline() == at(110)
    assert table.expire(at(109.9)) == []
    assert [session.name for session in table.expire(at(110))] == [name]
    with pytest.raises(NotFoundError, match=name):
        table.get(name)


def test_a_tunnel_that_comes_back_in_time_keeps_it(table):
    name = table.create("alice", spec(), NOON).name
    bring_up(table, name)
    table.agent_gone("hairpin-agent-0", at(5))
    table.report("hairpin-agent-0", frozenset({name}), at(14))
    assert table.next_deadline() is None and table.expire(at(1000)) == []


def test_ends_when_no_tunnel_ever_comes(table):
    table.create("alice", spec(), NOON)
    assert table.expire(at(29)) == [] and len(table.expire(at(30))) == 1


def test_other_changes_do_not_put_the_deadline_off(table):
    name = table.create("alice", spec(), NOON).name
    bring_up(table, name)
    table.report("hairpin-agent-0", frozenset(), at(10))
    table.patch(name, at(15), local_port=8081)
    table.report("hairpin-agent-0", frozenset(), at(16))
    assert table.next_deadline() == at(20)


def test_the_same_requests_are_refused_and_the_owner_is_named(table):
    table.create("alice", spec(), NOON)
    with pytest.raises(ConflictError, match="alice"):
        table.create("bob", spec(), at(1))
    with pytest.raises(ConflictError, match="alice"):
        table.create("bob", spec(match=parse_match("header x-user=42")), at(1))


def test_other_environments_ports_and_egress_stand_beside_it(table):
    first = table.create("alice", spec(), NOON)
    others = [
        table.create("bob", spec("bob"), at(1)),
        table.create("bob", spec(target=Target("checkout", port="grpc")), at(2)),
        table.create("bob", spec(None, target=None, mode=Mode.EGRESS), at(3)),
    ]
    assert len({session.name for session in [first, *others]}) == 4
    assert not any(session.status.conditions for session in others)


def test_an_overlap_that_cant_be_decided_is_allowed_and_told(table):
    table.create("alice", spec(None, match=parse_match("header x-a=1")), NOON)
    session = table.create("bob", spec(None, match=parse_match("header x-b=1")), at(1))
    [condition] = session.status.conditions
    assert "alice" in condition.message


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"target": Target("chekout")}, NotFoundError, "checkout"),
        ({"target": Target("checkout", namespace="other")}, NotFoundError, "'other'"),
        ({"target": Target("checkout")}, InvalidFieldError, "several"),
        ({"target": Target("checkout", port=81)}, InvalidFieldError, "9090 (grpc)"),
        ({"target": Target("plain")}, InvalidFieldError, "steerable"),
    ],
)
def test_what_is_no_target_is_refused_by_name(table, change, error, words):
    with pytest.raises(error) as raised:
        table.create("alice", spec(**change), NOON)
    assert words in str(raised.value)
    assert table.sessions == []


def test_listeners_hear_of_each_change_once(table):
    heard = []
    table.listeners.append(lambda change, session: heard.append((change, session.status.phase)))
    name = table.create("alice", spec(), NOON).name
    for seconds in (1, 2, 3):
        table.report("hairpin-agent-0", frozenset({name}), at(seconds))
    table.delete(name)
    assert heard == [(Change.ADDED, Phase.PENDING), (Change.MODIFIED, Phase.READY), (Change.DELETED, Phase.READY)]


def test_a_new_key_gets_a_new_certificate_of_the_same_name(table):
    session = table.create("alice", spec(), NOON)
    _, request = new_key_and_request()
    renewed = table.patch(session.name, at(300), certificate_request=request)
    assert renewed.status.certificate != session.status.certificate
    assert tuple(certificate_names(renewed.status.certificate).dns) == (session.name,)


def test_active_once_the_sidecars_have_acknowledged_it(table):
    name = table.create("alice", spec(), NOON).name
    bring_up(table, name)
    assert served(table) == table.unconfirmed("checkout") == [name]
    assert table.get(name).status.phase is Phase.READY
    table.confirm([name], at(2))
    assert table.get(name).status.phase is Phase.ACTIVE and table.unconfirmed("checkout") == []
    table.patch(name, at(3), local_port=None)
    table.confirm([name], at(4))
    assert table.get(name).status.phase is Phase.READY


def test_versions_are_told_as_each_says_its_own(table):
    session = table.create("alice", spec(), NOON)
    assert (session.status.server, {agent.version for agent in session.status.agents}) == (OURS, {""})
    table.agent_states("hairpin-agent-1", "0.2.0")
    bring_up(table, session.name)
    assert [agent.version for agent in table.get(session.name).status.agents] == ["", "0.2.0"]
