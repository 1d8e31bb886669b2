"""Which addresses nobody reaches through the egress, whatever a policy says. Pure, but for `own_addresses`."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Mapping

import psutil

from hairpin.model.egress import Address, Network, embedded_ipv4

_FORBIDDEN: Mapping[Network, str] = {
    ipaddress.ip_network(network): reason
    for network, reason in {
        "0.0.0.0/8": "means this host",
        "127.0.0.0/8": "is the agent's own loopback",
        "169.254.0.0/16": "is link-local, where clouds keep their metadata",
        "224.0.0.0/4": "is multicast",
        "240.0.0.0/4": "is reserved",
        "::/128": "means this host",
        "::1/128": "is the agent's own loopback",
        "::/96": "is an IPv4 address in disguise",
        "64:ff9b:1::/48": "is an IPv4 address in disguise",
        "fe80::/10": "is link-local",
        "fec0::/10": "is site-local",
        "ff00::/8": "is multicast",
        "fd00:ec2::254/128": "is a cloud's metadata",
        "fd20:ce::254/128": "is a cloud's metadata",
    }.items()
}
_ISTIOS = ipaddress.IPv4Network("240.240.0.0/16")
"""What Istio gives ServiceEntries that have no address: the sidecar takes it, and it leads nowhere else."""


def forbidden(address: Address, also: Mapping[Network, str] | None = None) -> str:
    """Why nobody may reach this address; empty where everybody may.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) is judged as the IPv4 address.

    Args:
        address: the address.
        also: further networks, each with its reason.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "has a zone, so it is link-local"
        inner = embedded_ipv4(address)
        if inner:
            return forbidden(inner, also)
    for networks in (_FORBIDDEN, also or {}):
        for network, reason in networks.items():
            if address.version == network.version and address in network and not _is_istios(address):
                return reason
    return ""


def networks_of(texts: Iterable[str], reason: str = "") -> dict[Network, str]:
    """Networks and addresses with a reason; by default `is in NETWORK`."""
    return {network: reason or f"is in {network}" for text in texts if text for network in [ipaddress.ip_network(text)]}


def own_addresses() -> dict[Network, str]:
    """Every address of this network namespace: at them are the agent itself and its sidecar."""
    own: dict[Network, str] = {}
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            with contextlib.suppress(ValueError):  # a link's own, not IP
                own[ipaddress.ip_network(address.address.partition("%")[0])] = "is the agent's own address"
    return own


def _is_istios(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv4Address) and address in _ISTIOS
