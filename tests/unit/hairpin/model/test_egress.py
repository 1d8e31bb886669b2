"""Egress policies: which rule decides."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.model.egress import Action, EgressPolicy, EgressRule, Ports, SessionRules, effective, judge

ALLOW, DENY = Action.ALLOW, Action.DENY
IN, OUT = ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("192.0.2.1")
SIX = ipaddress.ip_address("fd12::1")


def rule(action, **fields):
    fields["cidrs"] = tuple(map(ipaddress.ip_network, fields.get("cidrs", ())))
    fields["ports"] = tuple(Ports(*ports) for ports in fields.get("ports", ()))
    return EgressRule(action=action, number=1, **fields)


def allowed(rules, host, *addresses, port=443, default=DENY, full_name=""):
    made = SessionRules(rules=tuple(rules), default=default)
    return judge(
        made, host, [ipaddress.ip_address(address) for address in addresses], port, full_name=full_name
    ).allowed


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("db.prod", "db.prod", True),
        ("db.prod", "DB.Prod.", True),
        ("db.prod", "x.db.prod", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "badexample.com", False),
        ("*.example.com", "a.example.com.evil.org", False),
    ],
)
def test_names(pattern, host, covered):
    assert allowed([rule(ALLOW, hosts=(pattern,))], host, IN) is covered


def test_a_name_rule_covers_no_address_literal():
    assert not allowed([rule(ALLOW, hosts=("10.1.2.3",))], "10.1.2.3", IN)
    assert not allowed([rule(ALLOW, hosts=("fd12::1",))], "[fd12::1]", SIX)


def test_every_address_is_judged():
    inside = [rule(ALLOW, cidrs=("10.0.0.0/8",))]
    assert allowed(inside, "a", IN)
    assert not allowed(inside, "a", IN, OUT)
    outside = [rule(DENY, cidrs=("10.0.0.0/8",))]
    assert allowed(outside, "a", OUT, default=ALLOW)
    assert not allowed(outside, "a", OUT, IN, default=ALLOW)
    assert not allowed(inside, "a", SIX)


@pytest.mark.parametrize("disguise", ["::ffff:10.1.2.3", "64:ff9b::a01:203", "2002:a01:203::"])
def test_an_address_in_another_is_judged_as_what_it_leads_to(disguise):
    assert not allowed([rule(DENY, cidrs=("10.0.0.0/8",))], f"[{disguise}]", disguise, default=ALLOW)
    assert allowed([rule(ALLOW, cidrs=("10.0.0.0/8",))], f"[{disguise}]", disguise)


def test_ports():
    rules = [rule(ALLOW, ports=((443, 443), (8000, 8100)))]
    assert [port for port in (442, 443, 444, 7999, 8000, 8100, 8101) if allowed(rules, "a", IN, port=port)] == [
        443,
        8000,
        8100,
    ]


def test_the_first_rule_that_matches_decides():
    rules = [rule(DENY, hosts=("a.x",)), rule(ALLOW, hosts=("*.x",)), rule(DENY)]
    assert [allowed(rules, host, IN, default=ALLOW) for host in ("a.x", "b.x", "c")] == [False, True, False]


def test_a_denied_name_is_denied_in_short_and_by_an_alias():
    rules = [rule(DENY, hosts=("*.prod.svc.cluster.local",))]
    for asked in ("db.prod", "db.prod.svc", "alias.shop", "db.prod.svc.cluster.local."):
        assert not allowed(rules, asked, IN, default=ALLOW, full_name="db.prod.svc.cluster.local")


def test_an_allowed_name_is_allowed_in_short_but_not_at_the_end_of_an_alias():
    rules = [rule(ALLOW, hosts=("db.prod.svc.cluster.local",))]
    assert allowed(rules, "db.prod", IN, full_name="db.prod.svc.cluster.local")
    assert not allowed(rules, "evil.org", IN, full_name="db.prod.svc.cluster.local")
    assert not allowed(rules, "d", IN, full_name="db.prod.svc.cluster.local")
    assert allowed([rule(ALLOW, hosts=("api.org",))], "api.org", IN, full_name="x.cdn.net")


def test_a_rule_is_for_whom_it_names():
    policy = EgressPolicy(
        rules=(
            EgressRule(action=DENY, owners=("bob",), environments=("demo",)),
            EgressRule(action=DENY, environments=("demo", "test"), hosts=("x",)),
            EgressRule(action=ALLOW),
        ),
        default=DENY,
    )
    numbers = {
        who: [found.number for found in effective(policy, *who).rules]
        for who in (("bob", "demo"), ("alice", "demo"), ("bob", "prod"), ("bob", None))
    }
    assert numbers == {("bob", "demo"): [1, 2, 3], ("alice", "demo"): [2, 3], ("bob", "prod"): [3], ("bob", None): [3]}
    assert all(not found.owners and not found.environments for found in effective(policy, "bob", "demo").rules)
    assert effective(policy, "bob", None).default is DENY


def test_without_a_policy_everything_is_allowed():
    assert judge(effective(None, "bob", None), "a", [IN], 80).allowed


def test_a_refusal_names_the_rule():
    policy = EgressPolicy(
        rules=(
            EgressRule(action=ALLOW, hosts=("a",)),
            EgressRule(action=DENY, cidrs=(ipaddress.ip_network("10.0.0.0/8"),), ports=(Ports(1, 9),), reason="use X"),
        ),
        default=DENY,
    )
    rules = effective(policy, "bob", None)
    refusal = judge(rules, "b", [IN], 5)
    assert refusal.reason == "is decided by rule 2 (Deny 10.0.0.0/8, ports 1-9) of the egress policy: use X"
    assert judge(rules, "b", [IN], 10).reason == "is in no rule of the egress policy, whose default is Deny"


@given(st.lists(st.ip_addresses(), min_size=1, max_size=4), st.ip_addresses(v=4).map(lambda a: f"{a}/9"), st.booleans())
def test_more_addresses_never_allow_more(addresses, network, deny):
    network = ipaddress.ip_network(network, strict=False)
    found = EgressRule(action=DENY if deny else ALLOW, cidrs=(network,))
    rules = SessionRules(rules=(found,), default=ALLOW if deny else DENY)
    together = judge(rules, "a", addresses, 1).allowed
    assert together == all(judge(rules, "a", [address], 1).allowed for address in addresses)
