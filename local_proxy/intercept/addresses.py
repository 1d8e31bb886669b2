"""Socket addresses as the kernel takes them, and the header that tells Envoy where a connection was meant to go. Pure."""

from __future__ import annotations

import functools
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

IPAddress = IPv4Address | IPv6Address

SHORTEST = 2
"""Bytes of a socket address that hold its family."""
LONGEST = 128
"""Bytes of the longest socket address, struct sockaddr_storage."""
_INET_SIZE, _INET6_SIZE = 16, 28
_INET6_LEAST = 24  # the kernel takes one without its scope (SIN6_LEN_RFC2133)
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY, _STREAM = 0x21, 1
_INET, _INET6 = 1, 2
_AUTHORITY, _NAME = 0x02, 0xE0


class Endpoint(NamedTuple):
    """An address and port. An IPv4-mapped address is the IPv4 address that it means."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        return authority(str(self.address), self.port)


class UnixPath(NamedTuple):
    """A socket in the file system; abstract ones begin with a zero byte."""

    path: bytes


def family(raw: bytes) -> int | None:
    """A socket address's family; None if it is too short to have one."""
    return int(struct.unpack_from("=H", raw)[0]) if len(raw) >= SHORTEST else None


@functools.lru_cache(1024)
def parse(raw: bytes) -> Endpoint | UnixPath | None:
    """What a socket address means; None if it is of another family, or too short: the kernel has its own words for that."""
    match family(raw):
        case socket.AF_INET if len(raw) >= _INET_SIZE:
            return Endpoint(IPv4Address(raw[4:8]), int.from_bytes(raw[2:4], "big"))
        case socket.AF_INET6 if len(raw) >= _INET6_LEAST:
            address = IPv6Address(raw[8:24])
            return Endpoint(address.ipv4_mapped or address, int.from_bytes(raw[2:4], "big"))
        case socket.AF_UNIX:
            return UnixPath(
                raw[2:3] + raw[3:].partition(b"\0")[0] if raw[2:3] == b"\0" else raw[2:].partition(b"\0")[0]
            )
        case _:
            return None


def with_port(raw: bytes, port: int) -> bytes:
    """An Internet socket address with another port."""
    return raw[:2] + port.to_bytes(2, "big") + raw[4:]


def authority(host: str, port: int) -> str:
    """A host and port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def proxy_header(source: Endpoint, destination: Endpoint, target: str, name: str = "") -> bytes:
    """The header of PROXY protocol 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt) that opens a connection to the gateway.

    Args:
        source: the connection's own end.
        destination: what the program connected to.
        target: what to CONNECT to, host and port.
        name: what the program had looked up to find that address.
    """
    if source.address.version == destination.address.version == 4:  # noqa: PLR2004
        kind, packed = _INET, source.address.packed + destination.address.packed
    else:
        kind, packed = _INET6, _mapped(source.address) + _mapped(destination.address)
    body = packed + struct.pack(">HH", source.port, destination.port) + _value(_AUTHORITY, target)
    if name:
        body += _value(_NAME, name)
    return _SIGNATURE + struct.pack(">BBH", _PROXY, kind << 4 | _STREAM, len(body)) + body


def _mapped(address: IPAddress) -> bytes:
    return address.packed if isinstance(address, IPv6Address) else bytes(10) + b"\xff\xff" + address.packed


def _value(kind: int, text: str) -> bytes:
    data = text.encode()
    return struct.pack(">BH", kind, len(data)) + data
