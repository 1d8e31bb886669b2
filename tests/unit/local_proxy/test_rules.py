import argparse
import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.errors import InvalidFieldError
from hairpin.model.egress import Ports
from local_proxy.commands.rule_arguments import add_rule_arguments
from local_proxy.rule_flags import all_rules, local_hosts, registry_hosts, rules_in
from local_proxy.rule_text import parse_rule, registry_rules
from local_proxy.rules import Action, Rules

LOCAL, MESH, REFUSE = Action.LOCAL, Action.MESH, Action.REFUSE


def rules(text, **environ):
    """Of flags as they are typed."""
    parser = argparse.ArgumentParser()
    add_rule_arguments(parser)
    return all_rules(rules_in(parser.parse_args(text.split())), environ)


def decide(text, names, address, port=80):
    return rules(text).decide(names.split(), address and ipaddress.ip_address(address), port).action


@pytest.mark.parametrize(
    ("text", "hosts", "network", "ports"),
    [
        ("db.internal", "db.internal", None, ()),
        ("DB.Internal.", "db.internal", None, ()),
        ("*.corp:443", "*.corp", None, (Ports(443, 443),)),
        (".corp", ".corp", None, ()),
        ("db-*.corp", "db-*.corp", None, ()),
        ("my_db", "my_db", None, ()),
        ("*", None, None, ()),
        (":25", None, None, (Ports(25, 25),)),
        ("*:80,8000-8100", None, None, (Ports(80, 80), Ports(8000, 8100))),
        ("10.0.0.1", None, "10.0.0.1/32", ()),
        ("10.0.0.0/8:5432", None, "10.0.0.0/8", (Ports(5432, 5432),)),
        ("fd00::1", None, "fd00::1/128", ()),
        ("fd00::/8", None, "fd00::/8", ()),
        ("[fd00::1]", None, "fd00::1/128", ()),
        ("[fd00::1]:443", None, "fd00::1/128", (Ports(443, 443),)),
        ("[fd00::/8]:1-2", None, "fd00::/8", (Ports(1, 2),)),
        ("::ffff:10.0.0.1", None, "10.0.0.1/32", ()),
        ("[::ffff:10.0.0.0/104]:1", None, "10.0.0.0/8", (Ports(1, 1),)),
    ],
)
def test_a_rule_is_read(text, hosts, network, ports):
    rule = parse_rule(REFUSE, text)
    assert (rule.hosts, rule.network and str(rule.network), rule.ports) == (hosts, network, ports)
    assert rule.source == f"--refuse {text}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^--local is empty; write a host"),
        (":", "^--local is empty; "),
        ("http://db", "'http://db' is no host; .*; without scheme or user"),
        ("me@db", "is no host"),
        ("a b", "is no host"),
        ("db:", "'db:' names no ports; write numbers from 1 to 65535"),
        ("db:http", "has no ports in 'http'"),
        ("db:0", "has no ports in '0'"),
        ("db:65536", "has no ports in '65536'"),
        ("db:80,", "names no ports"),
        ("db:90-80", "ports that end before they begin: 90-80; write 80-90"),
        ("5432", "is a port without a host; write :5432"),
        ("10.0.0", "ends like an address and is none"),
        ("10.0.0.0/33", "has no prefix length in '33'"),
        ("10.0.0.1/8", "has bits beyond its prefix; did you mean 10.0.0.0/8?"),
        ("db/8", "is no address and no network"),
        ("fd00::1::2", "is no address and no network"),
        ("[db]:443", "has no IPv6 address in the brackets"),
        ("[fd00::1", "is no IPv6 address in brackets"),
        ("[fd00::1]443", "is no IPv6 address in brackets"),
        ("fe80::1%eth0", "has a zone"),
        ("-db", "is no host"),
        ("a..b", "is no host"),
    ],
)
def test_what_can_not_be_read_says_what_would_be_right(text, message):
    with pytest.raises(InvalidFieldError, match=message):
        parse_rule(LOCAL, text)


@pytest.mark.parametrize("text", ["localhost", "api.localhost:80", "127.0.0.1", "127.0.0.0/8", "[::1]:80", "::"])
def test_this_machine_can_not_be_in_the_mesh(text):
    with pytest.raises(InvalidFieldError, match="is this machine itself, which the mesh can't reach"):
        parse_rule(MESH, text)


def test_the_field_is_named_as_the_caller_says():
    with pytest.raises(InvalidFieldError, match=r"^rules\[2\]: 'a b' is no host"):
        parse_rule(LOCAL, "a b", "rules[2]")


@pytest.mark.parametrize(
    ("flags", "names", "address", "port", "action"),
    [
        ("", "inventory", "10.0.0.1", 80, MESH),
        ("", "", "10.0.0.1", 80, MESH),
        ("", "", "127.0.0.5", 80, LOCAL),
        ("", "", "::1", 80, LOCAL),
        ("", "", "::ffff:127.0.0.1", 80, LOCAL),
        ("", "", "0.0.0.0", 80, LOCAL),
        ("", "", "::", 80, LOCAL),
        ("", "LOCALHOST.", None, 80, LOCAL),
        ("", "a.localhost", None, 80, LOCAL),
        ("", "mylocalhost", "10.0.0.1", 80, MESH),
        ("--local db --refuse *", "db", "10.0.0.1", 80, LOCAL),
        ("--local db --refuse *", "inventory", "10.0.0.1", 80, REFUSE),
        ("--refuse * --local db", "db", "10.0.0.1", 80, REFUSE),
        ("--mesh *.svc --local *", "db.svc", "10.0.0.1", 80, MESH),
        ("--mesh *.svc --local *", "db", "10.0.0.1", 80, LOCAL),
        ("--local *.corp", "corp", "10.0.0.1", 80, MESH),
        ("--local *.corp", "A.B.Corp.", "10.0.0.1", 80, LOCAL),
        ("--local .corp", "corp", "10.0.0.1", 80, LOCAL),
        ("--local .corp", "a.b.corp", "10.0.0.1", 80, LOCAL),
        ("--local .corp", "acorp", "10.0.0.1", 80, MESH),
        ("--local a.corp", "axcorp", "10.0.0.1", 80, MESH),
        ("--local db-*", "db-1 other", "10.0.0.1", 80, LOCAL),
        ("--local db:5432", "db", "10.0.0.1", 5432, LOCAL),
        ("--local db:5432", "db", "10.0.0.1", 5433, MESH),
        ("--local 10.0.0.0/8", "db", "10.9.9.9", 1, LOCAL),
        ("--local 10.0.0.0/8", "db", "::ffff:10.9.9.9", 1, LOCAL),
        ("--local 10.0.0.0/8", "db", "11.0.0.1", 1, MESH),
        ("--local 10.0.0.0/8", "db", "fd00::1", 1, MESH),
        ("--local 10.0.0.0/8", "db", None, 1, MESH),
        ("--refuse :25", "", "10.0.0.1", 25, REFUSE),
        ("--refuse :25", "", "10.0.0.1", 26, MESH),
        # A rule for everything does not mean this machine itself; one that names it does.
        ("--refuse *", "", "127.0.0.1", 80, LOCAL),
        ("--refuse *", "localhost", None, 80, LOCAL),
        ("--refuse :6379", "", "::1", 6379, LOCAL),
        ("--mesh 0.0.0.0/0", "", "127.0.0.1", 80, LOCAL),
        ("--mesh ::/0", "", "::1", 80, LOCAL),
        ("--refuse 127.0.0.0/8:6379", "", "127.0.0.1", 6379, REFUSE),
        ("--refuse localhost:6379", "localhost", "127.0.0.1", 6379, REFUSE),
        ("--refuse db", "db", "127.0.0.1", 6379, REFUSE),
    ],
)
def test_the_first_rule_that_matches_decides(flags, names, address, port, action):
    assert decide(flags, names, address, port) is action


def test_a_decision_says_what_decided():
    assert rules("--refuse *.corp:80").decide(["a.corp"], None, 80).source == "--refuse *.corp:80"
    assert rules("").decide([], ipaddress.ip_address("127.0.0.1"), 80).source == "this machine itself stays local"
    assert rules("").decide(["a"], None, 80).source == "the default: into the mesh"


def test_what_listens_at_an_address_of_this_machine_is_local_unless_a_rule_says_otherwise():
    own = ipaddress.ip_address("192.0.2.7")
    plain = Rules(listened=lambda address, port: (address, port) == (own, 8080))
    assert plain.decide([], own, 8080).action is LOCAL
    assert plain.decide([], ipaddress.ip_address("::ffff:192.0.2.7"), 8080).action is LOCAL
    assert plain.decide([], own, 8081).action is MESH
    assert Rules((parse_rule(MESH, "192.0.2.7"),), listened=lambda *_: True).decide([], own, 8080).action is MESH


@pytest.mark.parametrize(
    ("flags", "host", "action"),
    [
        ("", "inventory", MESH),
        ("", "localhost", LOCAL),
        ("", "127.0.0.1", LOCAL),
        ("--refuse *", "localhost", LOCAL),
        ("--refuse *", "db", REFUSE),
        ("--local *.corp", "a.corp", LOCAL),
        # Which port is not known at a look-up:
        ("--local *.corp:443", "a.corp", LOCAL),
        ("--refuse *.corp:443", "a.corp", MESH),
        ("--local :443", "a.corp", MESH),
        ("--refuse :443 --local a.corp", "a.corp", LOCAL),
        ("--mesh a.corp:80 --local *.corp", "a.corp", MESH),
        ("--local 10.0.0.0/8", "10.1.1.1", LOCAL),
        ("--local 10.0.0.0/8", "db", MESH),
    ],
)
def test_a_look_up_goes_where_the_rules_for_its_name_say(flags, host, action):
    assert rules(flags).decide_name(host).action is action


REGISTRIES = {
    "PIP_INDEX_URL": "https://me:secret@pip.test/simple",
    "PIP_EXTRA_INDEX_URL": "http://extra.test:8080/simple https://[fd00::5]/simple",
    "UV_INDEX": "mine=https://uv.test/simple",
    "npm_config_registry": "https://npm.test/",
    "npm_config__scope_registry": "https://scope.test/",
    "GOPROXY": "https://go.test|https://go2.test,direct",
    "CARGO_REGISTRIES_MINE_INDEX": "sparse+https://cargo.test/index/",
    "MAVEN_REPO_URL": "https://10.1.2.3:8443/maven",
    "DATABASE_URL": "http://no.test",
    "HTTP_PROXY": "http://proxy.test",
    "PIP_CERT": "/etc/ca.pem",
}


@pytest.mark.parametrize(
    ("host", "port", "action"),
    [
        ("pip.test", 443, LOCAL), ("pip.test", 80, MESH), ("extra.test", 8080, LOCAL), ("uv.test", 443, LOCAL),
        ("npm.test", 443, LOCAL), ("scope.test", 443, LOCAL), ("go.test", 443, LOCAL), ("go2.test", 443, LOCAL),
        ("cargo.test", 443, LOCAL), ("no.test", 80, MESH), ("proxy.test", 80, MESH), ("direct", 443, MESH),
    ],
)  # fmt: skip
def test_package_registries_stay_local_as_the_users_variables_name_them(host, port, action):
    assert rules("", **REGISTRIES).decide([host], ipaddress.ip_address("10.0.0.9"), port).action is action


def test_a_registry_may_be_an_address_and_a_rule_of_the_users_comes_first():
    made = rules("--mesh pip.test", **REGISTRIES)
    assert made.decide([], ipaddress.ip_address("10.1.2.3"), 8443).action is LOCAL
    assert made.decide([], ipaddress.ip_address("fd00::5"), 443).action is LOCAL
    assert made.decide(["pip.test"], None, 443).action is MESH
    assert made.decide(["npm.test"], None, 443).source == "a package registry stays local (npm_config_registry)"
    assert all("secret" not in rule.source for rule in registry_rules(REGISTRIES))


def test_no_proxy_says_what_it_can_of_the_local_rules():
    text = (
        "--local db.internal --mesh mesh.test --refuse no.test --local *.corp --local 10.0.0.0/8 --local 10.0.0.1:80,81"
        " --local [fd00::1]:443 --local fd00::1 --local ranged:1-9 --local a*b --local :5432 --local db.internal"
    )
    assert local_hosts(rules(text).user) == (
        "db.internal", ".corp", "10.0.0.0/8", "10.0.0.1:80", "10.0.0.1:81", "[fd00::1]:443", "fd00::1",
    )  # fmt: skip
    assert local_hosts(rules("--local *").user) == ("*",)


HOSTS = st.one_of(
    st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{1,5}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)


@given(
    st.lists(st.tuples(st.sampled_from([LOCAL, REFUSE]), HOSTS, st.integers(1, 65535)), max_size=5),
    HOSTS,
    st.integers(1, 65535),
)
def test_a_destination_gets_what_the_first_rule_that_names_it_says(user, host, port):
    made = Rules(tuple(parse_rule(action, f"{where}:{at}") for action, where, at in user))
    bare = host.strip("[]")
    try:
        names, address = [], ipaddress.ip_address(bare)
    except ValueError:
        names, address = [bare], None
    decision = made.decide(names, address, port)
    expected = next((action for action, where, at in user if (where, at) == (host, port)), None)
    if expected is not None:
        assert decision.action is expected
    else:
        assert decision.action is MESH or not decision.source.startswith("--")


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_by_name(text):
    said = ""
    with contextlib.suppress(InvalidFieldError):
        said = parse_rule(LOCAL, text).source
    if not said:
        with pytest.raises(InvalidFieldError, match=r"^--local"):
            parse_rule(LOCAL, text)


def test_registries_are_what_no_proxy_says_unless_a_rule_sends_them_elsewhere():
    environ = {
        "PIP_INDEX_URL": "https://pip.example/simple",
        "GOPROXY": "http://go.example:8080,direct",
        "npm_config_registry": "http://192.0.2.7:4873/",
    }
    assert registry_hosts(all_rules((), environ)) == ("go.example", "pip.example", "192.0.2.7")
    mesh = tuple(parse_rule(Action.MESH, text) for text in ("go.example", "192.0.2.0/24"))
    assert registry_hosts(all_rules(mesh, environ)) == ("pip.example",)
    assert registry_hosts(all_rules((), {})) == ()
