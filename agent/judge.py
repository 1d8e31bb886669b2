"""Where the egress leads: which address a connection gets, judged after resolution.

Envoy asks for every CONNECT, over a Unix socket, and connects to the very address in the answer: it resolves nothing
itself. So a name that resolves to a forbidden address, a forbidden one among several, another notation of it or an
answer that changes between two look-ups gets nowhere. Whose connection it is Envoy says, by the laptop's certificate.

A laptop that connects to an address may say by which name its program found it. The name is looked up here: rules by host
are judged by it, and the address is connected to if the name leads there, else the name's first one. So a name that does
not lead to an address gives it no rights.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from agent.addresses import forbidden
from agent.policies import Policies
from agent.resolve import Answer, ForbiddenHosts, Resolve, system_resolve
from hairpin.errors import UnavailableError
from hairpin.headers import HOST_HEADER, REFUSED_HEADER, SESSION_HEADER
from hairpin.model.egress import Address, Network, judge
from hairpin.model.names import is_address

ADDRESS_HEADER = "x-hairpin-address"
AUTHORITY_HEADER = "x-hairpin-authority"

_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/@]+))(?::(?P<port>\d{1,5}))?")
_NAME = re.compile(r"[^\s:\[\]/@%]*[A-Za-z_][^\s:\[\]/@%]*")
"""A host's name. Envoy writes `-` for what is not there."""
_DEFAULT_PORT = 80
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Verdict:
    """The address to connect to, or why there is none."""

    status: HTTPStatus
    address: str = ""
    reason: str = ""


class _NowhereError(Exception):
    """There is no address to connect to."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.verdict = Verdict(status, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Resolves and judges.

    Args:
        forbidden: more networks that nobody may reach, each with its reason.
        forbidden_hosts: names whose addresses nobody may reach.
        policies: the sessions' rules.
        resolve: looks a name up.
        timeout: seconds a look-up may take.
    """

    forbidden: Mapping[Network, str] = field(default_factory=dict)
    forbidden_hosts: ForbiddenHosts = field(default_factory=ForbiddenHosts)
    policies: Policies = field(default_factory=Policies.without)
    resolve: Resolve = system_resolve
    timeout: float = 5.0

    async def judge(self, authority: str, session: str = "", name: str = "") -> Verdict:
        """The address to connect to; none if any of a name's addresses is forbidden, or forbidden to this session.

        Args:
            authority: what the laptop wants to connect to.
            session: whose laptop it is.
            name: by which name the program found the address in `authority`; empty where there is none.
        """
        try:
            host, port = _host_and_port(authority)
            wanted = _address(host)
            host, answer = await self._meant(host, wanted, name)
            await self._check(host, answer)
            rules = await self.policies.rules(session)
        except _NowhereError as error:
            return error.verdict
        except UnavailableError as error:
            return Verdict(HTTPStatus.SERVICE_UNAVAILABLE, reason=str(error))
        verdict = judge(rules, host, answer.addresses, port, full_name=answer.name)
        if not verdict.allowed:
            shown = f"{host}:{port}" if wanted and host != str(wanted) else authority
            return Verdict(HTTPStatus.FORBIDDEN, reason=f"{shown} {verdict.reason}")
        to = wanted if wanted in answer.addresses else answer.addresses[0]
        return Verdict(HTTPStatus.OK, address=f"[{to}]:{port}" if to.version == 6 else f"{to}:{port}")  # noqa: PLR2004

    async def _meant(self, host: str, wanted: Address | None, name: str) -> tuple[str, Answer]:
        """The host that the rules are for, and where it leads."""
        if wanted is None or not _NAME.fullmatch(name) or _address(name) is not None:
            return host, await self._look_up(host)
        try:
            return name, await self._look_up(name)
        except _NowhereError:
            # It has the address from elsewhere, a hosts file say; or the name is gone, as a program in the pod would not notice.
            return host, Answer((wanted,))

    async def _look_up(self, host: str) -> Answer:
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self.resolve(host)
        except (OSError, UnicodeError, TimeoutError, ValueError) as error:
            reason = f"{host} does not resolve: {str(error) or 'no answer in time'}"
            raise _NowhereError(HTTPStatus.BAD_GATEWAY, reason) from error
        if not answer.addresses:
            raise _NowhereError(HTTPStatus.BAD_GATEWAY, f"{host} has no address")
        return answer

    async def _check(self, host: str, answer: Answer) -> None:
        """What is nobody's to reach, whatever the session's rules say."""
        also = {**self.forbidden, **self.policies.forbidden}
        for address in answer.addresses:
            reason = forbidden(address, also) or await self.forbidden_hosts.reason(address)
            if reason:
                shown = f"{host} is {address}, which" if str(address) != host else host
                raise _NowhereError(HTTPStatus.FORBIDDEN, f"{shown} {reason}")

    async def handle(self, request: web.Request) -> web.Response:
        """Envoy's question: authority and session in headers; the answer is a header too."""
        headers = request.headers
        name = headers.get(HOST_HEADER, "")
        verdict = await self.judge(headers.get(AUTHORITY_HEADER, ""), headers.get(SESSION_HEADER, ""), name)
        header = {ADDRESS_HEADER: verdict.address} if verdict.address else {REFUSED_HEADER: one_line(verdict.reason)}
        return web.Response(status=verdict.status, headers=header)

    async def serve(self, socket_path: Path) -> web.AppRunner:
        """Listen on a Unix socket; the caller cleans the runner up."""
        application = web.Application()
        application.router.add_get("/", self.handle)
        return await serve_on_socket(application, socket_path)


async def serve_on_socket(application: web.Application, path: Path) -> web.AppRunner:
    """Serve on a Unix socket; the caller cleans the runner up. A handler ends with its connection."""
    runner = web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        # Envoy closes a connection after an hour; closed from here, it could be with a question on its way.
        keepalive_timeout=7200,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    path.unlink(missing_ok=True)  # once, at start
    await web.UnixSite(runner, str(path)).start()
    return runner


def _host_and_port(authority: str) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(authority)
    port = int(match["port"] or _DEFAULT_PORT) if match else 0
    if not match or not 0 < port <= _LAST_PORT or not _is_ipv6(match["six"] or "::"):
        raise _NowhereError(HTTPStatus.BAD_REQUEST, f"{authority!r} is no host and port")
    return match["six"] or match["host"], port


def _address(host: str) -> Address | None:
    """The address that a host is, if it is one; what IPv6 has of IPv4's (mapped) is IPv4's."""
    if not is_address(host):
        return None
    address = ipaddress.ip_address(host)
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def one_line(text: str) -> str:
    """A reason, as a header can have it."""
    return " ".join(text.encode("ascii", "replace").decode().split())
