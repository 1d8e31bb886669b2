"""The agent's side of xds_server's HTTP API: its certificate, its reports, and the egress policies.

Each call is a connection of its own: where a replica of the control plane answers that another one is to be asked, the next
connection may reach that one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp

from agent.policies import Policies
from agent.reports import Reports
from agent.settings import ControlPlane
from agent.trust import Trust
from hairpin.certificates import new_key_and_request
from hairpin.envoy.config import Identity, write_identity
from hairpin.errors import HairpinError, NotFoundError, UnavailableError
from hairpin.model.version import user_agent
from hairpin.sockets import watched_socket

log = logging.getLogger(__name__)

_CALL_TIMEOUT = aiohttp.ClientTimeout(total=10)
_STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)
_POLICIES_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
"""A stream of policies that says nothing for so long is given up; the control plane repeats itself more often."""
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 2.0
"""Seconds between attempts, doubling from the first to the longest."""
_LEADER_DELAY = 0.25
"""The longest while a replica answers that another leads: which one is asked is the sidecar's choice, anew each time."""
_SOONEST_RENEWAL = 1.0
_WITHOUT_POLICIES_DELAY = 60.0
"""Seconds until a control plane that has no policies is asked again."""
_NOT_THE_LEADER = "not the leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long the certificate holds."""

    identity: str
    """The SPIFFE ID it bears."""
    not_after: datetime
    authority: str = ""
    """What it is signed by, in PEM; Envoy reads that at its start."""

    def seconds_to_renewal(self, now: datetime) -> float:
        """Half of what is left."""
        return max((self.not_after - now).total_seconds() / 2, _SOONEST_RENEWAL)


class RefusedError(HairpinError):
    """The control plane knows this agent not, or not under this name; asking again does not help."""


class NotTheLeaderError(UnavailableError):
    """Another replica of the control plane takes this."""


class ControlPlaneClient:
    """Calls of one agent; `connect` gives one."""

    def __init__(self, session: aiohttp.ClientSession, settings: ControlPlane) -> None:
        self._session = session
        self._settings = settings
        self._trust = Trust(settings.authority)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: ControlPlane) -> AsyncIterator[ControlPlaneClient]:
        """A client that trusts the settings' authority alone."""
        async with aiohttp.ClientSession(
            headers={"User-Agent": user_agent()},
            connector=aiohttp.TCPConnector(force_close=True, use_dns_cache=False, socket_factory=watched_socket),
        ) as session:
            yield cls(session, settings)

    async def certificate(self, identity: Identity) -> Lease:
        """Get a certificate for a new key and write both; a running Envoy takes them. The key stays here.

        Raises:
            RefusedError: the token is not accepted.
            UnavailableError: any other failure.
        """
        key, request = new_key_and_request()
        url = f"{self._settings.api}/v1/certificates"
        try:
            async with self._session.post(
                url,
                json={"certificateRequest": request},
                headers=self._authorization(),
                timeout=_CALL_TIMEOUT,
                ssl=self._trust.context(),
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise await _error(url, response)
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"{url}: {str(error) or 'no answer in time'}") from error
        try:
            chain, authority = answer["certificate"], answer["certificateAuthority"]
            lease = Lease(
                identity=answer["identity"],
                not_after=datetime.fromisoformat(answer["notAfter"]),
                authority=authority,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"{url}: an answer that can't be read: {error!r}") from error
        write_identity(identity, key=key.encode(), chain=chain.encode(), authority=authority.encode())
        return lease

    async def first_certificate(self, identity: Identity) -> Lease:
        """The same, as soon as the control plane answers.

        Raises:
            RefusedError: the token is not accepted.
        """
        remark = _Remark()
        async for _ in _attempts():
            try:
                return await self.certificate(identity)
            except UnavailableError as error:
                remark(f"no certificate yet: {error}")
        raise AssertionError("attempts end never")

    async def keep_certificate(
        self, identity: Identity, lease: Lease, on_new_authority: Callable[[], Awaitable[None]]
    ) -> None:
        """Renew at half of the lifetime, for ever. A refusal is logged: the certificate holds for some time yet.

        Args:
            identity: the files.
            lease: that of the present certificate.
            on_new_authority: called when a certificate came that another authority has signed.
        """
        while True:
            await asyncio.sleep(lease.seconds_to_renewal(datetime.now(UTC)))
            try:
                before, lease = lease, await self.certificate(identity)
            except HairpinError as error:
                log.warning("the certificate holds until %s and is not renewed: %s", lease.not_after, error)
                continue
            if lease.authority != before.authority:
                await on_new_authority()

    async def report(self, name: str, reports: Reports) -> None:
        """Keep the stream of reports open; when it breaks, open another, which starts with the full state."""
        url = f"{self._settings.api}/v1/agents/{name}/reports"
        remark = _Remark()
        async for attempt in _attempts():
            try:
                async with self._session.post(
                    url,
                    data=reports.stream(),
                    headers={**self._authorization(), "Content-Type": "application/x-ndjson"},
                    timeout=_STREAM_TIMEOUT,
                    ssl=self._trust.context(),
                ) as response:
                    raise await _error(url, response)
            except NotTheLeaderError:
                attempt.longest_delay = _LEADER_DELAY
                remark(f"{url}: asked a replica that does not lead; trying until the leader answers", attempt)
            except (aiohttp.ClientError, TimeoutError, HairpinError) as error:
                remark(f"{url}: {str(error) or 'no answer in time'}", attempt)

    async def policies(self, name: str, policies: Policies, *, needed: bool) -> None:
        """Keep the stream of egress policies open; while it is broken, what was said last holds.

        Args:
            name: the agent's.
            policies: takes what comes.
            needed: whether a control plane without policies is one that fails; else everything is allowed there.
        """
        url = f"{self._settings.api}/v1/agents/{name}/policies"
        remark = _Remark()
        async for attempt in _attempts():
            try:
                async with self._session.get(
                    url, headers=self._authorization(), timeout=_POLICIES_TIMEOUT, ssl=self._trust.context()
                ) as response:
                    if response.status == HTTPStatus.NOT_FOUND and not needed:
                        policies.there_are_none()
                        remark(f"{url}: the control plane has no egress policies", attempt)
                        await asyncio.sleep(_WITHOUT_POLICIES_DELAY)
                        continue
                    if response.status != HTTPStatus.OK:
                        raise await _error(url, response)
                    await _take_policies(response, policies, attempt)
                    raise UnavailableError("the stream ended")
            except (aiohttp.ClientError, TimeoutError, HairpinError) as error:
                remark(f"{url}: {str(error) or 'no answer in time'}", attempt)

    def _authorization(self) -> dict[str, str]:
        try:
            token = self._settings.token_file.read_text().strip()
        except OSError as error:
            path = self._settings.token_file
            raise NotFoundError(f"controlPlane.tokenFile: {path} can't be read: {error.strerror}") from error
        return {"Authorization": f"Bearer {token}"}


async def _take_policies(response: aiohttp.ClientResponse, policies: Policies, attempt: _Attempt) -> None:
    rest = b""
    async for chunk in response.content.iter_any():  # a line may be longer than readline takes
        *lines, rest = (rest + chunk).split(b"\n")
        for line in filter(None, lines):
            policies.take(line)
            attempt.worked = True


class _Attempt:
    """One of many. It counts as one that worked by itself when it lasted long enough."""

    def __init__(self) -> None:
        self.worked = False
        self.longest_delay = _LONGEST_DELAY
        self._started = asyncio.get_running_loop().time()

    @property
    def good(self) -> bool:
        """Whether the next one begins at once."""
        return self.worked or asyncio.get_running_loop().time() - self._started > _LONGEST_DELAY


async def _attempts() -> AsyncIterator[_Attempt]:
    """Attempts for ever, with a longer pause after each in a row that did not work."""
    delay = _FIRST_DELAY
    while True:
        attempt = _Attempt()
        yield attempt
        if attempt.good:
            delay = _FIRST_DELAY
        await asyncio.sleep(min(delay, attempt.longest_delay))
        delay = min(2 * delay, attempt.longest_delay)


class _Remark:
    """Warns, but not of the same thing twice in a row."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str, attempt: _Attempt | None = None) -> None:
        if text != self._last or (attempt is not None and attempt.good):
            log.warning("%s", text)
        self._last = text


async def _error(url: str, response: aiohttp.ClientResponse) -> HairpinError:
    text = " ".join((await response.text())[:500].split())
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE and _NOT_THE_LEADER in text:
        return NotTheLeaderError(f"{url}: {text}")
    kind = RefusedError if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) else UnavailableError
    return kind(f"{url}: {response.status} {text}")
