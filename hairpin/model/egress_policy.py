"""EgressPolicy: where the connections of a namespace's sessions may lead, beside what no policy can allow. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_NAME = "default"
"""The one policy of a namespace that counts."""
_ANY_SUBDOMAIN = "*."


class Action(StrEnum):
    """What a rule says."""

    ALLOW = "Allow"
    DENY = "Deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRule:
    """One rule. What is empty holds for everything; of several entries in a list any may hold."""

    action: Action
    hosts: tuple[str, ...] = ()
    """Names as the process asks for them, in lower case, or `*.SUFFIX` for all below one."""
    networks: tuple[Network, ...] = ()
    """Where the address that was resolved must lie."""
    ports: tuple[int, ...] = ()
    reason: str = ""
    """For whoever is refused by it."""

    def holds(self, host: str, address: Address, port: int) -> bool:
        """Whether a connection is what the rule is about."""
        return (
            (not self.hosts or any(_is_host(host, pattern) for pattern in self.hosts))
            and (not self.networks or any(_lies_in(address, network) for network in self.networks))
            and (not self.ports or port in self.ports)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """The rules of a namespace: the first that holds decides, else `default`."""

    rules: tuple[EgressRule, ...] = ()
    default: Action = Action.ALLOW

    def refusal(self, host: str, address: Address, port: int) -> str:
        """Why a connection is refused; empty if it is allowed."""
        for index, rule in enumerate(self.rules):
            if rule.holds(host, address, port):
                if rule.action is Action.ALLOW:
                    return ""
                return f"is refused by spec.rules[{index}] of the namespace's EgressPolicy" + _because(rule.reason)
        return "" if self.default is Action.ALLOW else "is in no rule of the namespace's EgressPolicy"

    def refusal_of_any(self, host: str, addresses: Sequence[Address], port: int) -> str:
        """Why one of a name's addresses is refused; empty if all are allowed."""
        return next((refusal for address in addresses if (refusal := self.refusal(host, address, port))), "")


def _is_host(host: str, pattern: str) -> bool:
    name = host.rstrip(".").lower()
    if pattern.startswith(_ANY_SUBDOMAIN):
        return name.endswith(pattern.removeprefix("*")) and name != pattern.removeprefix(_ANY_SUBDOMAIN)
    return name == pattern


def _lies_in(address: Address, network: Network) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.version == network.version and address in network


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
