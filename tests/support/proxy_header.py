"""Reads the PROXY protocol's second version, as Envoy's listener filter does; strict where Envoy is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from local_proxy.intercept.addresses import Endpoint

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED = 16


@dataclass(frozen=True)
class Header:
    source: Endpoint
    destination: Endpoint
    authority: str | None
    name: str | None


def read_header(data: bytes) -> tuple[bytes, Header]:
    """What follows the header, and the header."""
    assert data[:12] == SIGNATURE, data[:40]
    command, family, length = struct.unpack_from(">BBH", data, 12)
    assert command == 0x21
    assert family in (0x11, 0x21), "STREAM over IPv4 or IPv6"
    body, rest = data[FIXED : FIXED + length], data[FIXED + length :]
    assert len(body) == length
    size = 4 if family == 0x11 else 16
    source, destination = body[:size], body[size : 2 * size]
    ports = struct.unpack_from(">HH", body, 2 * size)
    values, at = {}, 2 * size + 4
    while at < length:
        kind, size = struct.unpack_from(">BH", body, at)
        values[kind] = body[at + 3 : at + 3 + size].decode()
        assert len(body) >= at + 3 + size
        at += 3 + size
    return rest, Header(
        Endpoint(_address(source), ports[0]), Endpoint(_address(destination), ports[1]), values.get(2), values.get(0xE0)
    )


def _address(packed: bytes):
    address = ip_address(packed)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
