"""EgressPolicy: where laptops' connections may go, by namespace and session. Values and their evaluation; no I/O.

The first rule that matches decides, else the default. A rule judges either the name that was asked for (`hosts`) or every
address that it resolved to (`cidrs`), or neither: then it matches every destination. One refused address among several
refuses the connection. What nobody may reach (loopback, link-local, …) is the agent's own business and comes before.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hairpin.model.names import is_address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

POLICY_NAME = "default"
"""The name of a namespace's one EgressPolicy object."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Action(StrEnum):
    """What a rule does."""

    ALLOW = "Allow"
    DENY = "Deny"


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports from `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        """As the policy has it: `443` or `8000-8100`."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRule:
    """One rule. What is empty restricts nothing."""

    action: Action
    hosts: tuple[str, ...] = ()
    """Names in lower case; `*.example.com` is every name below example.com, at any depth, and not itself."""
    cidrs: tuple[Network, ...] = ()
    ports: tuple[Ports, ...] = ()
    owners: tuple[str, ...] = ()
    """Whose sessions it is for."""
    environments: tuple[str, ...] = ()
    """The environments whose sessions it is for. With `owners`, both must fit."""
    reason: str = ""
    """For whoever is refused by it."""
    number: int = 0
    """Its place in the policy, from 1, by which a refusal names it; 0 where that is not known."""

    def concerns(self, owner: str, environment: str | None) -> bool:
        """Whether it is for sessions of this owner and environment."""
        return (not self.owners or owner in self.owners) and (
            not self.environments or (environment is not None and environment in self.environments)
        )

    def matches(self, names: Collection[str], address: Address | None, port: int) -> bool:
        """Whether it decides about this destination."""
        if self.ports and not any(port in ports for ports in self.ports):
            return False
        if self.hosts:
            return any(_covers(pattern, name) for pattern in self.hosts for name in names)
        if self.cidrs:
            return address is not None and any(
                address.version == network.version and address in network for network in self.cidrs
            )
        return True

    def __str__(self) -> str:
        """In short, for refusals: `rule 2 (Deny 10.0.0.0/8, ports 443)`."""
        where = ", ".join(map(str, self.hosts or self.cidrs)) or "everything"
        ports = f", ports {', '.join(map(str, self.ports))}" if self.ports else ""
        place = f"rule {self.number}" if self.number else "a rule"
        return f"{place} ({self.action} {where}{ports})"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """A namespace's policy."""

    rules: tuple[EgressRule, ...] = ()
    default: Action = Action.ALLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRules:
    """What of a policy concerns one session: whom a rule is for is settled, so it is no longer in there."""

    rules: tuple[EgressRule, ...] = ()
    default: Action = Action.ALLOW


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one connection."""

    allowed: bool
    reason: str
    """Names the rule, for whoever is refused."""


def effective(policy: EgressPolicy | None, owner: str, environment: str | None) -> SessionRules:
    """The rules for one session; without a policy everything is allowed."""
    if policy is None:
        return SessionRules()
    rules = tuple(
        replace(rule, owners=(), environments=(), number=number)
        for number, rule in enumerate(policy.rules, start=1)
        if rule.concerns(owner, environment)
    )
    return SessionRules(rules=rules, default=policy.default)


def embedded_ipv4(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: mapped, NAT64, 6to4 or Teredo. It is judged in its place."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def judge(rules: SessionRules, host: str, addresses: Sequence[Address], port: int, *, full_name: str = "") -> Verdict:
    """Whether a session may connect.

    Args:
        rules: the session's.
        host: the name or address literal that was asked for.
        addresses: all that it resolved to.
        port: the port.
        full_name: what the name turned out to be: completed by a search domain (`db.prod` is `db.prod.svc.cluster.local`)
            or the end of an alias. Denials hold for it as well; permissions only where the name was completed, since
            where an alias leads is its owner's choice.
    """
    asked, full = _plain(host), _plain(full_name)
    denied_by = {name for name in (asked, full) if name}
    allowed_by = {name for name in denied_by if name == asked or name.startswith(f"{asked}.")}
    last = Verdict(allowed=True, reason="")
    for address in addresses or (None,):
        plain = address and (embedded_ipv4(address) or address)
        last = _judge_one(rules, allowed_by, denied_by, plain, port)
        if not last.allowed:
            return last
    return last


def _judge_one(
    rules: SessionRules, allowed_by: set[str], denied_by: set[str], address: Address | None, port: int
) -> Verdict:
    for rule in rules.rules:
        names = denied_by if rule.action is Action.DENY else allowed_by
        if rule.matches(names, address, port):
            because = f": {rule.reason}" if rule.reason else ""
            return Verdict(rule.action is Action.ALLOW, f"is decided by {rule} of the egress policy{because}")
    return Verdict(
        rules.default is Action.ALLOW, f"is in no rule of the egress policy, whose default is {rules.default}"
    )


def _plain(host: str) -> str:
    """A name as rules have it; empty for an address literal, which `hosts` never cover."""
    return "" if is_address(host.strip("[]")) else host.lower().rstrip(".")


def _covers(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) and len(name) >= len(pattern) if pattern.startswith("*.") else name == pattern
