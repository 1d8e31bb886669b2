"""Where each connection of the command goes: into the mesh, natively from this machine, or nowhere. Pure.

The first rule that matches decides: the user's, in the order of the command line, then the built-in ones, then the mesh.

A rule for any host (`*`, or ports alone) and one for a network do not mean this machine itself, unless they lie in its
loopback: `--refuse '*'` still lets a program talk to its own parts.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from hairpin.model.egress import Address, Network, Ports
from hairpin.model.names import is_address

LAST_PORT = 65535


class Action(StrEnum):
    """Where a connection goes."""

    MESH = "mesh"
    """Through the agent, into the mesh."""
    LOCAL = "local"
    """As if hairpin were not there."""
    REFUSE = "refuse"
    """Nowhere: the program is told that it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. It has `hosts` or `network`, or neither: then it is for every destination."""

    action: Action
    hosts: str | None = None
    """A name in lower case, where `*` stands for any characters; `.corp` is corp and all names below it."""
    network: Network | None = None
    ports: tuple[Ports, ...] = ()
    """Empty: all."""
    source: str = ""
    """Where it comes from, for messages: `--local *.corp:443`."""

    def matches(self, names: Iterable[str], address: Address | None, port: int) -> bool:
        """Whether it decides about a connection to this address, which the program has by these names."""
        if self.ports and not any(port in ports for ports in self.ports):
            return False
        if self.network is not None:
            return address is not None and _within(address, self.network)
        if self.hosts is None:
            return not (any(map(_is_localhost, names)) if address is None else _is_here(address))
        return any(self.covers(name) for name in names)

    @property
    def names_here(self) -> bool:
        """Whether it is about nothing but this machine itself."""
        return _lies_here(self.network) if self.network is not None else _is_localhost(self.hosts or "")

    def covers(self, name: str) -> bool:
        """Whether it is for hosts of this name."""
        return self.hosts is not None and _pattern(self.hosts).fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a connection, or of a name's look-up."""

    action: Action
    source: str
    """What decided: the rule as the user wrote it, or a built-in one in words."""


DEFAULT = Decision(Action.MESH, "the default: into the mesh")
"""Where no rule matches."""
_HERE = tuple(
    ipaddress.ip_network(network) for network in ("127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128")
)  # a program that connects to 0.0.0.0 or :: reaches this machine (Linux' ip(7))
_LOCALHOST = "this machine itself stays local"
_STAYS = Decision(Action.LOCAL, _LOCALHOST)
_LOCALHOSTS = tuple(Rule(action=Action.LOCAL, hosts=hosts, source=_LOCALHOST) for hosts in ("localhost", "*.localhost"))
_BUILT_IN = (*(Rule(action=Action.LOCAL, network=network, source=_LOCALHOST) for network in _HERE), *_LOCALHOSTS)
_LISTENED = Decision(Action.LOCAL, "this machine listens there itself")


def _nowhere(_: Address, __: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules, in order.

    Args:
        user: the user's.
        registries: those of package registries.
        listened: whether an address of this machine has a listener at this port: what connects to it stays here,
            where no rule of the user's says otherwise.
    """

    user: tuple[Rule, ...] = ()
    registries: tuple[Rule, ...] = ()
    listened: Callable[[Address, int], bool] = field(default=_nowhere, compare=False)

    def decide(self, names: Iterable[str], address: Address | None, port: int) -> Decision:
        """What becomes of a connection.

        Args:
            names: every name by which the program may have come to the address; empty where it never asked.
            address: where it connects to; None if that is not known: then rules for networks match nothing.
            port: the port.
        """
        plain = tuple(_plain(name) for name in names)
        address = _unmapped(address)
        for rule in self.user:
            if rule.matches(plain, address, port):
                return Decision(rule.action, rule.source)
        if address is not None:
            if self.listened(address, port):
                return _LISTENED
            if _is_here(address):
                return _STAYS
        for rule in (*_LOCALHOSTS, *self.registries):
            if rule.matches(plain, address, port):
                return Decision(rule.action, rule.source)
        return DEFAULT

    def here(self, names: Iterable[str], address: Address, port: int) -> Decision | None:
        """What the user says of a connection to this machine itself; None if nothing: then it stays here.

        Args:
            names: every name by which the program may have come to the address; `localhost` is one of each.
            address: one of loopback, or 0.0.0.0 or ::.
            port: the port.
        """
        if not self.user:
            return None
        plain = (*map(_plain, names), "localhost")
        address = _unmapped(address) or address
        rule = next((rule for rule in self.user if rule.matches(plain, address, port)), None)
        return Decision(rule.action, rule.source) if rule is not None else None

    def decide_name(self, host: str) -> Decision:
        """Where a name is looked up: in the cluster (mesh) or by this machine's resolver (local); or not at all (refuse).

        The port of the connection to come is not known yet. So a rule of some ports decides where it is for hosts of
        some names, and refuses nothing: a name that is local for one port is looked up here.
        """
        name = _plain(host)
        address = ipaddress.ip_address(name) if is_address(name) else None
        for rule in (*self.user, *_BUILT_IN, *self.registries):
            if rule.ports and (rule.hosts is None or rule.action is Action.REFUSE):
                continue
            if rule.matches((name,), address, rule.ports[0].first if rule.ports else 0):
                return Decision(rule.action, rule.source)
        return DEFAULT


# Matching


def _plain(name: str) -> str:
    return name.strip("[]").lower().rstrip(".")


def _unmapped(address: Address | None) -> Address | None:
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


@functools.lru_cache(1024)
def _is_here(address: Address) -> bool:
    return any(_inside(address, network) for network in _HERE)


def _within(address: Address, network: Network) -> bool:
    """Whether a network means this address: this machine's own only if it lies in there as a whole."""
    if not _inside(address, network):
        return False
    return not _is_here(address) or _lies_here(network)


def _inside(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _lies_here(network: Network) -> bool:
    return any(_inside(network.network_address, here) and network.prefixlen >= here.prefixlen for here in _HERE)


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


@functools.cache  # as many as rules
def _pattern(hosts: str) -> re.Pattern[str]:
    inner = ".*".join(re.escape(part) for part in hosts.removeprefix(".").split("*"))
    return re.compile(rf"(?:.+\.)?{inner}" if hosts.startswith(".") else inner)
