"""Which addresses nobody reaches through the egress, judged after resolution.

Envoy asks for every CONNECT, over a Unix socket, and connects to the very address in the answer: it resolves nothing
itself. So a name that resolves to a forbidden address, a forbidden one among several, another notation of it or an
answer that changes between two look-ups gets nowhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str], Awaitable[Sequence[Address]]]

ADDRESS_HEADER = "x-hairpin-address"
AUTHORITY_HEADER = "x-hairpin-authority"
REFUSED_HEADER = "x-hairpin-refused"

_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/@]+))(?::(?P<port>\d{1,5}))?")
_DEFAULT_PORT = 80
_LAST_PORT = 65535

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_FORBIDDEN: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), reason)
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
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The address to connect to, or why there is none."""

    status: HTTPStatus
    address: str = ""
    reason: str = ""


def forbidden(address: Address, also: Sequence[Network] = ()) -> str:
    """Why nobody may reach this address; empty where everybody may.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) is judged as the IPv4 address.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return "has a zone, so it is link-local"
        inner = _inner(address)
        if inner:
            return forbidden(inner, also)
    for network, reason in _FORBIDDEN:
        if address.version == network.version and address in network:
            return reason
    return next(
        (f"is in {network}" for network in also if address.version == network.version and address in network), ""
    )


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


async def system_resolve(host: str) -> Sequence[Address]:
    """Every address of a name or literal, in the order of preference, as the system resolves it."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(answer[4][0]) for answer in answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Resolves and judges.

    Args:
        forbidden: more networks that nobody may reach.
        resolve: looks a name up.
        timeout: seconds a look-up may take.
    """

    forbidden: tuple[Network, ...] = ()
    resolve: Resolve = system_resolve
    timeout: float = 5.0

    async def judge(self, authority: str) -> Verdict:
        """The first address of an authority; none if any of its addresses is forbidden."""
        match = _AUTHORITY.fullmatch(authority)
        port = int(match["port"] or _DEFAULT_PORT) if match else 0
        if not match or not 0 < port <= _LAST_PORT or not _is_ipv6(match["six"] or "::"):
            return Verdict(HTTPStatus.BAD_REQUEST, reason=f"{authority!r} is no host and port")
        host = match["six"] or match["host"]
        try:
            async with asyncio.timeout(self.timeout):
                addresses = await self.resolve(host)
        except (OSError, UnicodeError, TimeoutError, ValueError) as error:
            return Verdict(HTTPStatus.BAD_GATEWAY, reason=f"{host} does not resolve: {error or 'no answer in time'}")
        if not addresses:
            return Verdict(HTTPStatus.BAD_GATEWAY, reason=f"{host} has no address")
        for address in addresses:
            if reason := forbidden(address, self.forbidden):
                shown = f"{host} is {address}, which" if str(address) != host else host
                return Verdict(HTTPStatus.FORBIDDEN, reason=f"{shown} {reason}")
        first = addresses[0]
        return Verdict(HTTPStatus.OK, address=f"[{first}]:{port}" if first.version == 6 else f"{first}:{port}")  # noqa: PLR2004

    async def handle(self, request: web.Request) -> web.Response:
        """Envoy's question: the authority in a header; the answer is a header too."""
        verdict = await self.judge(request.headers.get(AUTHORITY_HEADER, ""))
        header = {ADDRESS_HEADER: verdict.address} if verdict.address else {REFUSED_HEADER: _one_line(verdict.reason)}
        return web.Response(status=verdict.status, headers=header)

    async def serve(self, socket_path: Path) -> web.AppRunner:
        """Listen on a Unix socket; the caller cleans the runner up."""
        application = web.Application()
        application.router.add_get("/", self.handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        socket_path.unlink(missing_ok=True)  # once, at start
        await web.UnixSite(runner, str(socket_path)).start()
        return runner


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _one_line(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())
