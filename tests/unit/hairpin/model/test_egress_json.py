"""Egress policies in JSON."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import hairpin.model.egress_json
from hairpin.errors import InvalidFieldError
from hairpin.model.egress import Action, EgressRule, Ports, SessionRules
from hairpin.model.egress_json import (
    EGRESS_POLICY_SPEC,
    egress_policy_from_json,
    egress_policy_to_json,
    session_rules_from_json,
    session_rules_to_json,
)

ALLOW = {"action": "Allow"}


def policy(*rules, **spec):
    return {"kind": "EgressPolicy", "metadata": {"name": "default"}, "spec": {"rules": list(rules), **spec}}


def test_the_documented_example():
    document = yaml.safe_load(hairpin.model.egress_json.__doc__.partition("\n\n")[2])
    read = egress_policy_from_json(document)
    assert read.default is Action.DENY
    assert egress_policy_from_json({"spec": egress_policy_to_json(read)}) == read
    assert read.rules == (
        EgressRule(action=Action.DENY, cidrs=(ipaddress.ip_network("10.9.0.0/16"),), reason="that is production"),
        EgressRule(action=Action.ALLOW, hosts=("*.example.com", "db.prod"), ports=(Ports(443, 443), Ports(8000, 8100))),
        EgressRule(action=Action.ALLOW, owners=("alice",), environments=("demo",)),
    )
    jsonschema.validate(document["spec"], EGRESS_POLICY_SPEC.schema())


def test_the_example_in_the_documentation():
    page = (Path(__file__).parents[4] / "docs" / "egress.md").read_text()
    document = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    assert len(egress_policy_from_json(document).rules) == 4
    jsonschema.validate(document["spec"], EGRESS_POLICY_SPEC.schema())


def test_what_is_left_out():
    read = egress_policy_from_json({"spec": {}})
    assert (read.rules, read.default) == ((), Action.ALLOW)
    (rule,) = egress_policy_from_json(policy({**ALLOW, "hosts": ["A.Example"], "cidrs": []})).rules
    assert rule.hosts == ("a.example",)
    (rule,) = egress_policy_from_json(policy({**ALLOW, "cidrs": ["fd00::1"]})).rules
    assert rule.cidrs == (ipaddress.ip_network("fd00::1/128"),)


BAD = [
    ({}, "action"),
    ({"action": "allow"}, "action"),
    ({**ALLOW, "hosts": ["10.0.0.1"]}, "hosts[0]"),
    ({**ALLOW, "hosts": ["x", "*.1"]}, "hosts[1]"),
    ({**ALLOW, "hosts": ["a.*"]}, "hosts[0]"),
    ({**ALLOW, "hosts": ["*"]}, "hosts[0]"),
    ({**ALLOW, "hosts": ["a..b"]}, "hosts[0]"),
    ({**ALLOW, "hosts": ["https://a"]}, "hosts[0]"),
    ({**ALLOW, "hosts": "a"}, "hosts"),
    ({**ALLOW, "hosts": ["a"], "cidrs": ["10.0.0.0/8"]}, "hosts"),
    ({**ALLOW, "cidrs": ["example.com"]}, "cidrs[0]"),
    ({**ALLOW, "cidrs": [7]}, "cidrs[0]"),
    ({**ALLOW, "ports": [0]}, "ports[0]"),
    ({**ALLOW, "ports": ["080"]}, "ports[0]"),
    ({**ALLOW, "ports": ["http"]}, "ports[0]"),
    ({**ALLOW, "owners": [""]}, "owners[0]"),
    ({**ALLOW, "port": [1]}, "port"),
]
BEYOND_THE_SCHEMA = [
    ({**ALLOW, "cidrs": ["10.0.0.1/8"]}, "cidrs[0]"),
    ({**ALLOW, "cidrs": ["10.0.0.0/33"]}, "cidrs[0]"),
    ({**ALLOW, "ports": ["9-8"]}, "ports[0]"),
    ({**ALLOW, "ports": ["1-65536"]}, "ports[0]"),
]


@pytest.mark.parametrize(("rule", "field"), BAD + BEYOND_THE_SCHEMA)
def test_an_error_names_its_field(rule, field):
    with pytest.raises(InvalidFieldError) as caught:
        egress_policy_from_json(policy(ALLOW, rule))
    assert caught.value.field == f"spec.rules[1].{field}"


@pytest.mark.parametrize("rule", [rule for rule, _ in BAD])
def test_the_schema_refuses_the_same(rule):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rules": [rule]}, EGRESS_POLICY_SPEC.schema())


def test_a_namespace_has_one_policy():
    with pytest.raises(InvalidFieldError, match=r"metadata\.name: 'mine' is no name of an egress policy"):
        egress_policy_from_json({"metadata": {"name": "mine"}, "spec": {}})


ports = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: Ports(min(pair), max(pair)))
networks = st.ip_addresses().map(ipaddress.ip_network)
names = st.from_regex(r"(\*\.)?([a-z]{1,3}\.){0,2}[a-z]{1,3}", fullmatch=True)
destinations = st.one_of(
    st.fixed_dictionaries({"hosts": st.lists(names, max_size=2).map(tuple)}),
    st.fixed_dictionaries({"cidrs": st.lists(networks, max_size=2).map(tuple)}),
)
rules = st.builds(
    lambda where, **rest: EgressRule(**where, **rest),
    destinations,
    action=st.sampled_from(Action),
    ports=st.lists(ports, max_size=2).map(tuple),
    number=st.integers(1, 64),
)


@given(st.builds(SessionRules, rules=st.lists(rules, max_size=3).map(tuple), default=st.sampled_from(Action)))
def test_a_sessions_rules_arrive_as_they_were_sent(found):
    assert session_rules_from_json(session_rules_to_json(found)) == found


def test_rules_that_can_not_be_read_are_refused():
    for document in ({}, {"default": "Deny", "rules": [{"action": "?"}]}, {"default": "Deny", "rule": []}, []):
        with pytest.raises(InvalidFieldError):
            session_rules_from_json(document)
