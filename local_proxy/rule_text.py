"""Rules as they are written, read: the user's, and those that package managers' variables tell. Pure.

--local '*.corp:443'         names below corp, port 443: natively
--mesh 10.0.0.0/8            a network: into the mesh
--refuse :25,6000-6063       any host, these ports: refused
--local [fd00::1]:5432       an IPv6 address and a port
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from hairpin.errors import InvalidFieldError
from hairpin.model.egress import Network, Ports
from hairpin.model.names import is_address
from local_proxy.rules import LAST_PORT, Action, Rule

_REMEDY = "write a host or an address, with or without ports: db.internal, '*.corp:443', 10.0.0.0/8, :5432,8000-8100"
_HOST = re.compile(r"[A-Za-z0-9_*]([A-Za-z0-9_.*-]*[A-Za-z0-9_*])?\.?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_ANY = "*"
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
    if action is Action.MESH and rule.names_here:
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
