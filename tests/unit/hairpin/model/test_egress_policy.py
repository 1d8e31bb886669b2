from __future__ import annotations

from ipaddress import ip_address

import pytest

from hairpin.errors import InvalidFieldError
from hairpin.model.egress_policy import Action, EgressPolicy
from hairpin.model.egress_policy_json import egress_policy_from_json, egress_policy_to_json

SPEC = {
    "default": "Deny",
    "rules": [
        {"action": "Deny", "hosts": ["pay.example.com"], "reason": "use the sandbox"},
        {"action": "Allow", "hosts": ["*.example.com"], "ports": [443, 8443]},
        {"action": "Allow", "cidrs": ["10.0.0.0/8", "fd00::/8"]},
    ],
}
POLICY = egress_policy_from_json({"spec": SPEC})


@pytest.mark.parametrize(
    ("host", "address", "port", "refusal"),
    [
        ("a.example.com", "192.0.2.1", 443, ""),
        ("A.Example.com.", "192.0.2.1", 8443, ""),
        ("a.example.com", "192.0.2.1", 80, "is in no rule of the namespace's EgressPolicy"),
        ("example.com", "192.0.2.1", 443, "is in no rule of the namespace's EgressPolicy"),
        ("badexample.com", "192.0.2.1", 443, "is in no rule of the namespace's EgressPolicy"),
        (
            "pay.example.com",
            "10.0.0.1",
            443,
            "is refused by spec.rules[0] of the namespace's EgressPolicy: use the sandbox",
        ),
        ("inventory", "10.1.2.3", 80, ""),
        ("inventory", "::ffff:10.1.2.3", 80, ""),
        ("inventory", "fd00::1", 80, ""),
        ("inventory", "2001:db8::1", 80, "is in no rule of the namespace's EgressPolicy"),
    ],
)
def test_the_first_rule_that_holds_decides(host, address, port, refusal):
    assert POLICY.refusal(host, ip_address(address), port) == refusal


def test_one_refused_address_refuses_the_name():
    assert POLICY.refusal_of_any("x", [ip_address("10.0.0.1"), ip_address("192.0.2.1")], 80)
    assert not POLICY.refusal_of_any("x", [ip_address("10.0.0.1")], 80)


def test_without_rules_everything_is_allowed():
    assert EgressPolicy().refusal("x", ip_address("192.0.2.1"), 80) == ""


def test_it_is_written_as_it_was_read():
    assert egress_policy_to_json(POLICY) == SPEC
    assert POLICY.rules[0].action is Action.DENY


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"rules": [{"hosts": ["a"]}]}, "spec.rules[0].action is missing; add the field"),
        ({"rules": [{"action": "allow"}]}, "spec.rules[0].action: 'allow' is not known; did you mean 'Allow'?"),
        (
            {"rules": [{"action": "Allow", "cidrs": ["10.0.0.1/8"]}]},
            "spec.rules[0].cidrs[0]: '10.0.0.1/8' is no network (10.0.0.1/8 has host bits set); "
            "write it as in 10.0.0.0/8 or fd00::/8",
        ),
        (
            {"rules": [{"action": "Allow", "hosts": ["a.*.com"]}]},
            "spec.rules[0].hosts[0]: 'a.*.com' is not a host's name; "
            "write it as in example.com, or *.example.com for all names below one",
        ),
        ({"rules": [{"action": "Allow", "ports": [0]}]}, "spec.rules[0].ports[0]: 0 is out of range; use 1 to 65535"),
    ],
)
def test_what_cannot_be_used_is_named(spec, message):
    with pytest.raises(InvalidFieldError) as caught:
        egress_policy_from_json({"spec": spec})
    assert str(caught.value) == message
