"""A client of the laptop's gateway: PROXY protocol 2, written by hand from its specification."""

from __future__ import annotations

import asyncio
import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOOPBACK = "127.0.0.1"


def header(
    destination: tuple[str, int], authority: str, name: str = "", source: tuple[str, int] = (LOOPBACK, 40000)
) -> bytes:
    """PROXY, STREAM; with the TLVs AUTHORITY and 0xE0."""
    ends = [ipaddress.ip_address(host) for host, _ in (source, destination)]
    body = b"".join(end.packed for end in ends) + struct.pack("!HH", source[1], destination[1])
    for kind, text in ((0x02, authority), (0xE0, name)):
        if text:
            body += struct.pack("!BH", kind, len(text)) + text.encode()
    family = 0x11 if ends[0].version == 4 else 0x21
    return SIGNATURE + bytes([0x21, family]) + struct.pack("!H", len(body)) + body


async def dial(
    gateway: int, authority: str, name: str = "", destination: tuple[str, int] = ("10.96.0.1", 80)
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection through a gateway, past its header."""
    reader, writer = await asyncio.open_connection(LOOPBACK, gateway)
    source = (destination[0], 40000)
    writer.write(header(destination, authority, name, source))
    return reader, writer


async def get(gateway: int, authority: str, name: str = "", *, host: str = "", path: str = "/") -> bytes:
    """Everything that a GET over such a connection brings, until it ends; nothing if it is closed."""
    reader, writer = await dial(gateway, authority, name)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {host or name or authority}\r\nconnection: close\r\n\r\n".encode())
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()
