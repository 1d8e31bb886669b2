"""Names in the cluster, asked as a pod asks: of CoreDNS, from inside the pod's network namespace."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from pathlib import Path

import aiohttp.abc

from tests.support.netns import socket_in

_A, _IN = 1, 1
_SECONDS = 15.0
_POINTER = 0xC0


class Resolver(aiohttp.abc.AbstractResolver):
    """Resolves as a pod's resolv.conf would.

    Args:
        network: the network namespace to ask from.
        server: the DNS server's address.
        namespace: the pod's, for short names.
        domain: the cluster's.
    """

    def __init__(self, network: Path, server: str, namespace: str, domain: str = "cluster.local") -> None:
        self._network = network
        self._server = server
        self._search = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain, "")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        for suffix in self._search:
            addresses = await self._ask(f"{host}.{suffix}".rstrip("."))
            if addresses:
                return [_result(host, address, port) for address in addresses]
        raise OSError(f"{host} is no name in the cluster")

    async def close(self) -> None:
        pass

    async def _ask(self, name: str) -> list[str]:
        """By TCP: a question that is lost would need to be asked again."""
        number = secrets.randbelow(1 << 16)
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        question = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", _A, _IN)
        async with asyncio.timeout(_SECONDS):
            endpoint = socket_in(self._network)
            await asyncio.get_running_loop().sock_connect(endpoint, (self._server, 53))
            reader, writer = await asyncio.open_connection(sock=endpoint)
            try:
                writer.write(struct.pack(">H", len(question)) + question)
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                return _addresses(await reader.readexactly(length), len(question))
            finally:
                writer.close()


def _addresses(answer: bytes, at: int) -> list[str]:
    """The A records among the answers, which begin after the question."""
    (count,) = struct.unpack_from(">H", answer, 6)
    found = []
    for _ in range(count):
        while answer[at] and answer[at] < _POINTER:
            at += answer[at] + 1
        at += 2 if answer[at] >= _POINTER else 1
        kind, _, _, length = struct.unpack_from(">HHIH", answer, at)
        at += 10
        if kind == _A:
            found.append(socket.inet_ntoa(answer[at : at + length]))
        at += length
    return found


def _result(host: str, address: str, port: int) -> aiohttp.abc.ResolveResult:
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": socket.AF_INET,
        "proto": 0,
        "flags": socket.AI_NUMERICHOST,
    }
