"""Looking names up, as everything else in the pod does: by the system, with its search domains."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hairpin.errors import UnavailableError
from hairpin.model.egress import Address, embedded_ipv4

_LOOK_UP_SECONDS = 3.0
_NOT_THERE = (socket.EAI_NONAME, socket.EAI_NODATA)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a name leads to."""

    addresses: tuple[Address, ...]
    """All of them, in the order of preference."""
    name: str = ""
    """Its full name: completed by a search domain, or the end of an alias."""


Resolve = Callable[[str], Awaitable[Answer]]


async def system_resolve(host: str) -> Answer:
    """Every address of a name or literal, as the system resolves it."""
    answers = await asyncio.get_running_loop().getaddrinfo(
        host, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME
    )
    addresses = tuple(ipaddress.ip_address(answer[4][0]) for answer in answers)
    return Answer(addresses, next((answer[3] for answer in answers if answer[3]), ""))


@dataclass(slots=True)
class _Known:
    addresses: frozenset[Address] = frozenset()
    until: float = 0.0


@dataclass(slots=True, kw_only=True)
class ForbiddenHosts:
    """Names whose addresses nobody reaches, looked up again after a few seconds.

    Args:
        names: the names.
        resolve: looks a name up.
        kept_seconds: how long an answer is good for.
    """

    names: tuple[str, ...] = ()
    resolve: Resolve = system_resolve
    kept_seconds: float = 5.0
    _known: dict[str, _Known] = field(default_factory=dict)

    async def reason(self, address: Address) -> str:
        """Why nobody may reach this address; empty where everybody may.

        Raises:
            UnavailableError: a name was never looked up, and can't be now.
        """
        plain = embedded_ipv4(address) or address
        for name in self.names:
            if plain in await self._addresses(name):
                return f"is {name}, which is not for laptops"
        return ""

    async def _addresses(self, name: str) -> frozenset[Address]:
        now = asyncio.get_running_loop().time()
        known = self._known.get(name)
        if known and now < known.until:
            return known.addresses
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                found = frozenset((await self.resolve(name)).addresses)
        except (OSError, UnicodeError, ValueError) as error:
            if isinstance(error, socket.gaierror) and error.errno in _NOT_THERE:
                found = frozenset()
            elif known is None:
                raise UnavailableError(f"the agent can't look up {name}: {error}") from error
            else:
                found = known.addresses
        self._known[name] = _Known(found, now + self.kept_seconds)
        return found
