"""Egress policies in JSON and YAML: the EgressPolicy object, and a session's rules as agents and laptops get them.

spec:
  default: Deny
  rules:
  - {action: Deny, cidrs: [10.9.0.0/16], reason: that is production}
  - {action: Allow, hosts: ["*.example.com", db.prod], ports: [443, "8000-8100"]}
  - {action: Allow, owners: [alice], environments: [demo]}
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from hairpin.errors import InvalidFieldError
from hairpin.model.egress import POLICY_NAME, Action, EgressPolicy, EgressRule, Network, Ports, SessionRules
from hairpin.model.session_shapes import API_VERSION, ENVIRONMENT, METADATA
from hairpin.model.shape import Choice, Field, JsonSchema, ListOf, Record, Refusal, Text, Whole, shown
from hairpin.model.target import PORT

KIND_OF_EGRESS_POLICY = "EgressPolicy"

_MOST_RULES = 128
_LABEL = r"[A-Za-z0-9_](?:[-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
HOST = Text(
    what="a host's name",
    remedy="write db.prod, or *.example.com for all below it; addresses go into cidrs",
    pattern=rf"(?:\*\.)?(?:{_LABEL}\.)*{_LABEL}",
    least=1,
    most=253,
    # 10.0.0.1 and 127.1 are addresses, and so would be what a pattern of this end covers.
    refusals=(Refusal(r"(?:^|\.)[0-9]+$", "is an address, or ends like one", "put addresses into cidrs"),),
    lower=True,
)
OWNER = Text(what="a user's name", remedy="write it as the API server knows the user", least=1, most=253)
_ACTION = Choice((Action.ALLOW.value, Action.DENY.value))


class _CidrShape:
    """A network; an address alone is a network of one."""

    def read(self, value: Any, where: str) -> Network:
        remedy = "write it like 10.0.0.0/8 or fd00::/8"
        if not isinstance(value, str):
            raise InvalidFieldError(where, shown(value), "is not a string", remedy)
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise InvalidFieldError(where, shown(value), "is no network", remedy) from None
        if "/" in value and ipaddress.ip_address(value.partition("/")[0]) != network.network_address:
            raise InvalidFieldError(where, value, "has bits beyond its prefix", f"did you mean {network}?")
        return network

    def schema(self) -> JsonSchema:
        return {"type": "string", "maxLength": 64, "pattern": "^[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?$"}


class _PortsShape:
    """A port's number, or `FIRST-LAST`."""

    _pattern = r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?"

    def read(self, value: Any, where: str) -> Ports:
        remedy = "write it like 443 or 8000-8100"
        if not isinstance(value, str):
            number = PORT.read(value, where)
            return Ports(number, number)
        if not re.fullmatch(self._pattern, value):
            raise InvalidFieldError(where, shown(value), "is no port or range of ports", remedy)
        first, _, last = value.partition("-")
        ports = Ports(PORT.read(int(first), where), PORT.read(int(last or first), where))
        if ports.first > ports.last:
            raise InvalidFieldError(where, value, "ends before it begins", remedy)
        return ports

    def schema(self) -> JsonSchema:
        return {"oneOf": [PORT.schema(), {"type": "string", "maxLength": 11, "pattern": f"^{self._pattern}$"}]}


_DESTINATION = {
    "action": Field(_ACTION, needed=True),
    "hosts": Field(ListOf(HOST), default=()),
    "cidrs": Field(ListOf(_CidrShape()), default=()),
    "ports": Field(ListOf(_PortsShape()), default=()),
    "reason": Field(Text(what="a text", remedy="shorten it", most=256), default=""),
}


def _build_rule(found: dict[str, Any], where: str) -> EgressRule:
    if found["hosts"] and found["cidrs"]:
        problem = "stands beside cidrs: a rule judges the name asked for or the addresses, not both"
        raise InvalidFieldError(f"{where}.hosts", list(found["hosts"]), problem, "make two rules of it")
    return EgressRule(**{**found, "action": Action(found["action"])})


_NOT_BOTH: JsonSchema = {
    "not": {
        "properties": {"hosts": {"minItems": 1}, "cidrs": {"minItems": 1}},
        "required": ["hosts", "cidrs"],
    }
}
EGRESS_RULE = Record(
    fields={
        **_DESTINATION,
        "owners": Field(ListOf(OWNER), default=()),
        "environments": Field(ListOf(ENVIRONMENT), default=()),
    },
    build=_build_rule,
    rules=_NOT_BOTH,
)
EGRESS_POLICY_SPEC = Record(
    fields={
        "rules": Field(ListOf(EGRESS_RULE, most=_MOST_RULES), default=()),
        "default": Field(_ACTION, default=Action.ALLOW.value),
    },
    build=lambda found, _: EgressPolicy(rules=found["rules"], default=Action(found["default"])),
)


def _build_policy(found: dict[str, Any], _: str) -> EgressPolicy:
    name = (found["metadata"] or {}).get("name") or POLICY_NAME
    if name != POLICY_NAME:
        problem = "is no name of an egress policy: a namespace has one"
        raise InvalidFieldError("metadata.name", name, problem, f"call it {POLICY_NAME}")
    policy: EgressPolicy = found["spec"]
    return policy


EGRESS_POLICY = Record(
    fields={
        "apiVersion": Field(Choice((API_VERSION,))),
        "kind": Field(Choice((KIND_OF_EGRESS_POLICY,))),
        "metadata": Field(METADATA),
        "spec": Field(EGRESS_POLICY_SPEC, needed=True),
    },
    build=_build_policy,
)
"""The object; its JSON Schema, as the CRD has it, is `EGRESS_POLICY_SPEC`'s."""

SESSION_RULES = Record(
    fields={
        "default": Field(_ACTION, needed=True),
        "rules": Field(
            ListOf(
                Record(fields={**_DESTINATION, "number": Field(Whole(0, _MOST_RULES), default=0)}, build=_build_rule),
                most=_MOST_RULES,
            ),
            default=(),
        ),
    },
    build=lambda found, _: SessionRules(rules=found["rules"], default=Action(found["default"])),
)


def egress_policy_from_json(document: Any) -> EgressPolicy:
    """Read an EgressPolicy object.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    return EGRESS_POLICY.read(document, "")


def egress_policy_to_json(policy: EgressPolicy) -> dict[str, Any]:
    """Write the object's spec; what is empty is left out."""
    return {"rules": [_rule_to_json(rule) for rule in policy.rules], "default": policy.default.value}


def session_rules_from_json(document: Any, where: str = "") -> SessionRules:
    """Read one session's rules.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    return SESSION_RULES.read(document, where)


def session_rules_to_json(rules: SessionRules) -> dict[str, Any]:
    """Write one session's rules; what is empty is left out."""
    return {"default": rules.default.value, "rules": [_rule_to_json(rule) for rule in rules.rules]}


def _rule_to_json(rule: EgressRule) -> dict[str, Any]:
    document = {
        "number": rule.number,
        "action": rule.action.value,
        "hosts": list(rule.hosts),
        "cidrs": [str(network) for network in rule.cidrs],
        "ports": [ports.first if ports.first == ports.last else str(ports) for ports in rule.ports],
        "owners": list(rule.owners),
        "environments": list(rule.environments),
        "reason": rule.reason,
    }
    return {name: value for name, value in document.items() if value}
