"""The custom resource `EgressPolicy`.

spec:
  default: Deny
  rules:
  - {action: Allow, hosts: ["*.example.com"], ports: [443]}
  - {action: Allow, cidrs: [10.0.0.0/8]}
"""

from __future__ import annotations

import ipaddress
from typing import Any

from hairpin.model.egress_policy import Action, EgressPolicy, EgressRule, Network
from hairpin.model.session_json import API_VERSION
from hairpin.model.shape import Choice, Field, ListOf, Record, Text, UnfitError
from hairpin.model.target import PORT

ACTION = Choice(tuple(action.value for action in Action))
HOST = Text(
    what="a host's name",
    remedy="write it as in example.com, or *.example.com for all names below one",
    pattern=r"(?:\*\.)?[A-Za-z0-9_](?:[-A-Za-z0-9_]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[-A-Za-z0-9_]*[A-Za-z0-9_])?)*",
    least=1,
    most=253,
    lower=True,
)
_CIDR_REMEDY = "write it as in 10.0.0.0/8 or fd00::/8"


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise UnfitError(f"is no network ({error})", _CIDR_REMEDY) from None


CIDR = Text(
    what="a network",
    remedy=_CIDR_REMEDY,
    pattern=r"[0-9A-Fa-f:.]+/[0-9]{1,3}",
    least=1,
    most=64,
    check=_check_network,
)


def _build_rule(found: dict[str, Any], _: str) -> EgressRule:
    networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, found["cidrs"]))
    return EgressRule(
        action=Action(found["action"]),
        hosts=found["hosts"],
        networks=networks,
        ports=found["ports"],
        reason=found["reason"],
    )


EGRESS_RULE = Record(
    fields={
        "action": Field(ACTION, needed=True),
        "hosts": Field(ListOf(HOST), default=()),
        "cidrs": Field(ListOf(CIDR), default=()),
        "ports": Field(ListOf(PORT), default=()),
        "reason": Field(Text(what="a text", remedy="shorten it", most=256), default=""),
    },
    build=_build_rule,
)
EGRESS_POLICY_SPEC = Record(
    fields={
        "rules": Field(ListOf(EGRESS_RULE, most=128), default=()),
        "default": Field(ACTION, default=Action.ALLOW.value),
    },
    build=lambda found, _: EgressPolicy(rules=found["rules"], default=Action(found["default"])),
)
EGRESS_POLICY = Record(
    fields={
        "apiVersion": Field(Choice((API_VERSION,))),
        "kind": Field(Choice(("EgressPolicy",))),
        "metadata": Field(Record(fields={}, build=lambda found, _: found, open=True)),
        "spec": Field(EGRESS_POLICY_SPEC, needed=True),
    },
    build=lambda found, _: found["spec"],
)


def egress_policy_from_json(document: Any) -> EgressPolicy:
    """Read the custom resource.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    policy: EgressPolicy = EGRESS_POLICY.read(document, "")
    return policy


def egress_policy_to_json(policy: EgressPolicy) -> dict[str, Any]:
    """Write its spec; what is empty is left out."""
    return {"rules": [_rule_to_json(rule) for rule in policy.rules], "default": policy.default.value}


def _rule_to_json(rule: EgressRule) -> dict[str, Any]:
    fields = {
        "action": rule.action.value,
        "hosts": list(rule.hosts),
        "cidrs": [str(network) for network in rule.networks],
        "ports": list(rule.ports),
        "reason": rule.reason,
    }
    return {name: value for name, value in fields.items() if value}
