import errno
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.intercept.addresses import Endpoint, UnixPath
from local_proxy.intercept.answers import Answer
from local_proxy.intercept.choices import Connect, UdpPolicy
from local_proxy.intercept.machine import (
    ALLOWED_SECONDS,
    PASS,
    REFUSED_SECONDS,
    Fail,
    Machine,
    ToGateway,
    ToResolver,
    ToSink,
    Transport,
)
from local_proxy.intercept.names import MOST_ADDRESSES, VIRTUAL, Names
from local_proxy.rule_text import parse_rule
from local_proxy.rules import Action, Rules

TCP, UDP = Transport.TCP, Transport.UDP


def to(text, port=80):
    return Endpoint(ip_address(text), port)


def machine(*rules, udp=UdpPolicy.REFUSE, name_servers=("127.0.0.53",)):
    user = tuple(parse_rule(action, text) for action, text in rules)
    return Machine(Rules(user), Names(), frozenset(map(ip_address, name_servers)), udp)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("transport", list(Transport))
def test_this_machine_stays_here(address, transport):
    assert machine().connect(to(address), transport, 0) == PASS
    assert machine().send(to(address)) is None
    assert machine().local(to(address))


@pytest.mark.parametrize("rule", ["127.0.0.1:5432", "127.0.0.0/8", "localhost:5432", "*host:5000-6000"])
def test_a_users_rule_refuses_a_place_of_this_machine(rule):
    it = machine((Action.LOCAL, "127.0.0.1:8080"), (Action.REFUSE, rule))
    refused = Fail(errno.ECONNREFUSED, f"127.0.0.1:5432 is refused by --refuse {rule}")
    assert not it.local(to("127.0.0.1", 5432))
    assert it.connect(to("127.0.0.1", 5432), TCP, 0) == refused
    assert it.connect(to("127.0.0.1", 5432), UDP, 0) == ToSink()
    assert it.send(to("127.0.0.1", 5432)) == Fail(errno.ENETUNREACH, f"UDP to {refused.line}")
    # The first rule that matches decides.
    assert it.local(to("127.0.0.1", 8080))
    assert it.connect(to("127.0.0.1", 8080), TCP, 0) == PASS
    assert it.connect(to("127.0.0.53", 53), UDP, 0) == ToResolver()


@pytest.mark.parametrize("rule", ["*", ":5432", "10.0.0.0/8"])
def test_a_rule_for_everything_does_not_mean_this_machine(rule):
    assert machine((Action.REFUSE, rule)).local(to("127.0.0.1", 5432))


def test_everything_else_goes_to_the_mesh():
    assert machine().connect(to("10.1.2.3"), TCP, 0) == ToGateway("10.1.2.3:80", "", ask=True)
    assert machine().connect(to("fd00::1"), TCP, 0) == ToGateway("[fd00::1]:80", "", ask=True)


def test_the_name_that_was_looked_up_goes_with_it_the_latest_of_several():
    it = machine()
    it.names.remember("old.shop", [ip_address("10.1.2.3")])
    it.names.remember("inventory", [ip_address("10.1.2.3"), ip_address("10.1.2.4")])
    assert it.connect(to("10.1.2.3"), TCP, 0) == ToGateway("10.1.2.3:80", "inventory", ask=True)
    it.names.remember("old.shop", [ip_address("10.1.2.3")])
    assert it.connect(to("10.1.2.3"), TCP, 0) == ToGateway("10.1.2.3:80", "old.shop", ask=True)


def test_an_address_that_stands_for_a_name_asks_for_the_name():
    it = machine()
    address = it.names.stand_in("inventory.shop")
    assert address in VIRTUAL
    assert it.names.stand_in("inventory.shop") == address
    assert it.connect(Endpoint(address, 8080), TCP, 0) == ToGateway("inventory.shop:8080", "inventory.shop", ask=True)


@pytest.mark.parametrize("rule", ["10.1.0.0/16", "db.corp:80", "*.corp", ":80"])
def test_what_a_rule_keeps_local_passes(rule):
    it = machine((Action.LOCAL, rule))
    it.names.remember("db.corp", [ip_address("10.1.2.3")])
    assert it.connect(to("10.1.2.3"), TCP, 0) == PASS
    assert it.connect(to("10.1.2.3"), UDP, 0) == PASS
    assert it.send(to("10.1.2.3")) == PASS


def test_what_a_rule_refuses_fails_as_a_closed_port_and_names_the_rule():
    outcome = machine((Action.REFUSE, "10.0.0.0/8:25")).connect(to("10.1.2.3", 25), TCP, 0)
    assert outcome == Fail(errno.ECONNREFUSED, "10.1.2.3:25 is refused by --refuse 10.0.0.0/8:25")


def test_questions_to_name_servers_come_to_ours():
    it = machine()
    for transport in (TCP, UDP):
        assert it.connect(to("10.0.0.2", 53), transport, 0) == ToResolver()
        assert it.connect(to("127.0.0.53", 53), transport, 0) == ToResolver()
        assert it.connect(to("127.0.0.1", 53), transport, 0) == PASS, "a name server under development"
    assert it.send(to("fd00::53", 53)) == ToResolver()
    assert not it.local(to("127.0.0.53", 53))


@pytest.mark.parametrize("path", [b"/var/run/nscd/socket", b"/run/systemd/resolve/io.systemd.Resolve"])
def test_other_resolvers_are_not_there(path):
    assert machine().connect(UnixPath(path), Transport.OTHER, 0) == Fail(errno.ENOENT)
    assert not machine().local(UnixPath(path))


def test_other_unix_sockets_and_families_pass():
    assert machine().local(UnixPath(b"/run/postgresql/.s.PGSQL.5432"))
    assert machine().local(None)
    assert machine().connect(to("10.1.2.3"), Transport.OTHER, 0) == PASS


def test_udp_is_refused_once_it_is_used_or_passes():
    assert machine().connect(to("10.1.2.3", 443), UDP, 0) == ToSink()
    assert machine().send(to("10.1.2.3", 443)).error == errno.ENETUNREACH
    assert "--udp pass sends it" in machine().send(to("10.1.2.3", 443)).line
    passing = machine(udp=UdpPolicy.PASS)
    assert passing.connect(to("10.1.2.3", 443), UDP, 0) == PASS
    assert passing.send(to("10.1.2.3", 443)) == PASS
    refusing = machine((Action.REFUSE, ":443"), udp=UdpPolicy.PASS)
    assert refusing.connect(to("10.1.2.3", 443), UDP, 0) == ToSink()
    by_rule = "UDP to 10.1.2.3:443 is refused by --refuse :443"
    assert refusing.send(to("10.1.2.3", 443)) == Fail(errno.ENETUNREACH, by_rule)
    assert refusing.udp_line(to("10.1.2.3", 443)) == by_rule


def test_what_the_agent_said_is_believed_for_a_while():
    it = machine()
    it.learn("10.1.2.3:80", "", "policy default forbids it", 100)
    refused = it.connect(to("10.1.2.3"), TCP, 100 + REFUSED_SECONDS - 1)
    assert refused == Fail(errno.ECONNREFUSED, "10.1.2.3:80 is refused: policy default forbids it")
    assert it.connect(to("10.1.2.3"), TCP, 100 + REFUSED_SECONDS) == ToGateway("10.1.2.3:80", "", ask=True)
    it.learn("10.1.2.3:80", "", "", 200)
    assert it.connect(to("10.1.2.3"), TCP, 200 + ALLOWED_SECONDS - 1) == ToGateway("10.1.2.3:80", "", ask=False)


def test_a_verdict_is_for_the_name_that_was_asked_for():
    it = machine()
    it.learn("10.1.2.3:80", "", "no", 0)
    it.names.remember("inventory", [ip_address("10.1.2.3")])
    assert it.connect(to("10.1.2.3"), TCP, 1) == ToGateway("10.1.2.3:80", "inventory", ask=True)


addresses = st.one_of(
    st.none(),
    st.builds(UnixPath, st.binary(max_size=100)),
    st.builds(Endpoint, st.ip_addresses(), st.one_of(st.just(53), st.integers(0, 65535))),
)


@given(addresses, st.sampled_from(list(Transport)), st.sampled_from(list(UdpPolicy)))
def test_every_call_has_an_outcome_and_the_short_way_agrees(address, transport, udp):
    it = machine(udp=udp)
    outcome = it.connect(address, transport, 0)
    if it.local(address):
        assert outcome == PASS
        assert it.send(address) is None
    if isinstance(outcome, ToGateway):
        assert transport is TCP
    if isinstance(outcome, ToSink):
        assert transport is UDP and udp is UdpPolicy.REFUSE


def test_names_are_bounded():
    names = Names()
    for number in range(MOST_ADDRESSES + 10):
        names.remember("name", [ip_address(0x0A000000 + number)])
    assert names.of(ip_address(0x0A000000)) == ()
    assert names.of(ip_address(0x0A000000 + MOST_ADDRESSES)) == ("name",)
    for number in range(100):
        names.remember(f"n{number}", [ip_address("10.9.9.9")])
    assert names.of(ip_address("10.9.9.9"))[0] == "n99"
    assert len(names.of(ip_address("10.9.9.9"))) == 16


def exact():
    return Machine(Rules(), Names(), way=Connect.EXACT)


def test_an_exact_connect_asks_nothing_before():
    assert exact().connect(to("10.1.2.3"), TCP, 0) == ToGateway("10.1.2.3:80", "", ask=False, exact=True)


def test_what_the_agent_refuses_is_refused_at_once_for_a_while():
    it = exact()
    way = it.connect(to("10.1.2.3"), TCP, 0)
    answer = Answer(source="127.0.0.1:1", status=403, refused="policy default forbids it")
    fail = it.failed(to("10.1.2.3"), way, answer, 0)
    assert fail == Fail(errno.ECONNREFUSED, "10.1.2.3:80 is refused: policy default forbids it")
    assert it.connect(to("10.1.2.3"), TCP, REFUSED_SECONDS - 1) == fail
    assert it.connect(to("10.1.2.3"), TCP, REFUSED_SECONDS) == way


@pytest.mark.parametrize(
    "answer", [None, Answer(source="", status=503), Answer(source="", status=502, refused="no name")]
)
def test_what_fails_otherwise_is_tried_again_at_once(answer):
    it = exact()
    way = it.connect(to("10.1.2.3"), TCP, 0)
    fail = it.failed(to("10.1.2.3"), way, answer, 0)
    assert fail.error
    assert fail.line.startswith("10.1.2.3:80 can't be connected to: ")
    assert it.connect(to("10.1.2.3"), TCP, 0) == way


def test_rules_are_asked_before_the_agent():
    it = Machine(
        Rules((parse_rule(Action.REFUSE, "10.1.2.3"), parse_rule(Action.LOCAL, "10.2.0.0/16"))),
        Names(),
        way=Connect.EXACT,
    )
    assert it.connect(to("10.1.2.3"), TCP, 0) == Fail(errno.ECONNREFUSED, "10.1.2.3:80 is refused by --refuse 10.1.2.3")
    assert it.connect(to("10.2.0.1"), TCP, 0) == PASS
    assert it.connect(to("127.0.0.1"), TCP, 0) == PASS
