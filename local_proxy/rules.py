"""Where each connection of the command goes: into the mesh, natively from this machine, or nowhere. Pure.

The first rule that matches decides: the user's, in the order of the command line, then the built-in ones, then the mesh.

    --local '*.corp:443'         names below corp, port 443: natively
    --mesh 10.0.0.0/8            a network: into the mesh
    --refuse :25,6000-6063       any host, these ports: refused
    --local [fd00::1]:5432       an IPv6 address and a port

A rule for any host (`*`, or ports alone) and one for a network do not mean this machine itself, unless they lie in its
loopback: `--refuse '*'` still lets a program talk to its own parts.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hairpin.errors import InvalidFieldError
from hairpin.model.egress import Address, Network, Ports
from hairpin.model.names import is_address

LAST_PORT = 65535
_REMEDY = "write a host or an address, with or without ports: db.internal, '*.corp:443', 10.0.0.0/8, :5432,8000-8100"
_HOST = re.compile(r"[A-Za-z0-9_*]([A-Za-z0-9_.*-]*[A-Za-z0-9_*])?\.?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_ANY = "*"


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


def parse_rule(action: Action, text: str, field: str = "") -> Rule:
    """Read `HOST[:PORTS]`.

    Args:
        action: what the rule does.
        text: a name with or without `*`, an address, a network, or nothing; then `:` and ports: `443`, `8000-8100`,
            or several with commas between them. An IPv6 address before ports stands in brackets.
        field: where it was written, for messages; by default the action's flag.

    Raises:
        InvalidFieldError: it can't be read, or means nothing.
    """
    where = field or f"--{action}"
    host, ports = _split(text, where)
    source = f"{where} {text}"
    found = tuple(_ports(part, text, where) for part in ports.split(",")) if ports is not None else ()
    bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    network = _network(bare, text, where)
    if network is None and host.startswith("["):
        raise InvalidFieldError(where, text, "has no IPv6 address in the brackets", "write [fd00::1]:443")
    if network is None and bare not in ("", _ANY):
        _check_host(bare, text, where)
    hosts = None if network is not None or bare in ("", _ANY) else bare.lower().rstrip(".")
    rule = Rule(action=action, hosts=hosts, network=network, ports=found, source=source)
    if action is Action.MESH and _names_here(rule):
        raise InvalidFieldError(where, text, "is this machine itself, which the mesh can't reach", "leave it out")
    return rule


def registry_rules(environ: Mapping[str, str]) -> tuple[Rule, ...]:
    """Rules that keep package registries local, as the user's variables name them: `PIP_INDEX_URL` and the like."""
    rules: dict[tuple[str, int], Rule] = {}
    for variable, value in sorted(environ.items()):
        if not _REGISTRY_VARIABLE.fullmatch(variable):
            continue
        for found in _URL.finditer(value):
            host = found["six"] or found["host"].lower().rstrip(".")
            port = int(found["port"] or _SCHEMES[found["scheme"].lower()])
            if not 0 < port <= LAST_PORT:
                continue
            network = ipaddress.ip_network(host) if is_address(host) else None
            rule = Rule(
                action=Action.LOCAL,
                hosts=None if network else host,
                network=network,
                ports=(Ports(port, port),),
                source=f"a package registry stays local ({variable})",
            )
            rules.setdefault((host, port), rule)
    return tuple(rules.values())


_REGISTRY_VARIABLE = re.compile(
    r"(PIP|UV|PDM|POETRY|PIPENV)_[A-Z0-9_]*(INDEX|MIRROR|REPOSITORIES)[A-Z0-9_]*"
    r"|(npm_config|NPM_CONFIG|YARN|BUN_CONFIG)_([A-Za-z0-9_]*_)?(registry|REGISTRY)(_SERVER)?"
    r"|GOPROXY|GOSUMDB"
    r"|CARGO_(REGISTRY|REGISTRIES|SOURCE)_[A-Z0-9_]+"
    r"|(MAVEN|MVN|GRADLE)_[A-Z0-9_]*(REPO|MIRROR|DISTRIBUTION)[A-Z0-9_]*"
    r"|(BUNDLE_MIRROR__|GEM_|RUBYGEMS_|NUGET_|COMPOSER_|CONDA_)[A-Za-z0-9_:.]*"
)
"""What package managers read their registries from; each has its own words for them."""
_URL = re.compile(
    r"(?P<scheme>https?)://(?:[^\s/@,|]*@)?(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<host>[a-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_SCHEMES = {"http": 80, "https": 443}


# Reading


def _split(text: str, where: str) -> tuple[str, str | None]:
    """Host and ports; None where there are none."""
    if "://" in text or "@" in text or any(character.isspace() for character in text):
        raise InvalidFieldError(where, text, "is no host", f"{_REMEDY}; without scheme or user")
    if text.startswith("["):
        inside, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidFieldError(where, text, "is no IPv6 address in brackets", "write [fd00::1] or [fd00::1]:443")
        return f"{inside}]", rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None  # an IPv6 address, or nothing
    host, colon, ports = text.partition(":")
    if not host and not ports:
        raise InvalidFieldError(where, None, "is empty", _REMEDY)
    return host, ports if colon else None


def _ports(part: str, text: str, where: str) -> Ports:
    found = _PORTS.fullmatch(part)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= LAST_PORT or not 1 <= last <= LAST_PORT:
        remedy = f"write numbers from 1 to {LAST_PORT}: HOST:443, HOST:8000-8100 or HOST:80,443"
        raise InvalidFieldError(where, text, f"has no ports in {part!r}" if part else "names no ports", remedy)
    if first > last:
        raise InvalidFieldError(where, text, f"has ports that end before they begin: {part}", f"write {last}-{first}")
    return Ports(first, last)


def _network(host: str, text: str, where: str) -> Network | None:
    """The network, or an address as a network of one; None where it is neither."""
    address, slash, prefix = host.partition("/")
    if not is_address(address):
        if slash or ":" in host:
            raise InvalidFieldError(where, text, "is no address and no network", _REMEDY)
        return None
    if "%" in address:
        raise InvalidFieldError(where, text, "has a zone, which only this machine knows", "leave the zone out")
    try:
        network = ipaddress.ip_network(host, strict=False)
    except ValueError:
        raise InvalidFieldError(where, text, f"has no prefix length in {prefix!r}", "write 10.0.0.0/8") from None
    if slash and ipaddress.ip_address(address) != network.network_address:
        raise InvalidFieldError(where, text, "has bits beyond its prefix", f"did you mean {network}?")
    if isinstance(network, ipaddress.IPv6Network) and (plain := network.network_address.ipv4_mapped):
        # Programs with one socket for both families connect to ::ffff:10.0.0.1: that is 10.0.0.1.
        return ipaddress.ip_network(f"{plain}/{max(0, network.prefixlen - 96)}", strict=False)
    return network


def _check_host(host: str, text: str, where: str) -> None:
    name = host.removeprefix(".")
    if not _HOST.fullmatch(name) or ".." in name:
        raise InvalidFieldError(where, text, "is no host", _REMEDY)
    if re.fullmatch(r"[0-9]+", name):
        raise InvalidFieldError(where, text, "is a port without a host", f"write :{name} for the port of any host")
    if re.search(r"(^|\.)[0-9]+$", name):
        raise InvalidFieldError(where, text, "ends like an address and is none", _REMEDY)


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


def _names_here(rule: Rule) -> bool:
    return _lies_here(rule.network) if rule.network is not None else _is_localhost(rule.hosts or "")


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


@functools.cache  # as many as rules
def _pattern(hosts: str) -> re.Pattern[str]:
    inner = ".*".join(re.escape(part) for part in hosts.removeprefix(".").split("*"))
    return re.compile(rf"(?:.+\.)?{inner}" if hosts.startswith(".") else inner)
