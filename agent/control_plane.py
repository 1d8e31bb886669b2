"""The agent's side of xds_server's HTTP API: its certificate, and its reports."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp

from agent.reports import Reports
from agent.settings import ControlPlane
from hairpin.certificates import new_key_and_request
from hairpin.envoy.config import Identity, write_identity
from hairpin.errors import HairpinError, NotFoundError, UnavailableError

log = logging.getLogger(__name__)

_CALL_TIMEOUT = aiohttp.ClientTimeout(total=10)
_STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 2.0
"""Seconds between attempts, doubling from the first to the longest."""
_SOONEST_RENEWAL = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long the certificate holds."""

    identity: str
    """The SPIFFE ID it bears."""
    not_after: datetime

    def seconds_to_renewal(self, now: datetime) -> float:
        """Half of what is left."""
        return max((self.not_after - now).total_seconds() / 2, _SOONEST_RENEWAL)


class RefusedError(HairpinError):
    """The control plane knows this agent not, or not under this name; asking again does not help."""


class ControlPlaneClient:
    """Calls of one agent; `connect` gives one."""

    def __init__(self, session: aiohttp.ClientSession, settings: ControlPlane) -> None:
        self._session = session
        self._settings = settings

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: ControlPlane) -> AsyncIterator[ControlPlaneClient]:
        """A client that trusts the settings' authority alone.

        Raises:
            NotFoundError: the authority's file is missing or holds no certificate.
        """
        try:
            tls = ssl.create_default_context(cafile=str(settings.authority))
        except (OSError, ssl.SSLError) as error:
            raise NotFoundError(f"controlPlane.authority: {settings.authority} can't be used: {error}") from error
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
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
                url, json={"certificateRequest": request}, headers=self._authorization(), timeout=_CALL_TIMEOUT
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise await _error(url, response)
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"{url}: {error or 'no answer in time'}") from error
        try:
            chain, authority = answer["certificate"], answer["certificateAuthority"]
            lease = Lease(identity=answer["identity"], not_after=datetime.fromisoformat(answer["notAfter"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"{url}: an answer that can't be read: {error!r}") from error
        write_identity(identity, key=key.encode(), chain=chain.encode(), authority=authority.encode())
        return lease

    async def first_certificate(self, identity: Identity) -> Lease:
        """The same, as soon as the control plane answers.

        Raises:
            RefusedError: the token is not accepted.
        """
        delay = _FIRST_DELAY
        while True:
            try:
                return await self.certificate(identity)
            except UnavailableError as error:
                log.warning("no certificate yet: %s", error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    async def keep_certificate(self, identity: Identity, lease: Lease) -> None:
        """Renew at half of the lifetime, for ever. A refusal is logged: the certificate holds for some time yet."""
        while True:
            await asyncio.sleep(lease.seconds_to_renewal(datetime.now(UTC)))
            try:
                lease = await self.certificate(identity)
            except HairpinError as error:
                log.warning("the certificate holds until %s and is not renewed: %s", lease.not_after, error)

    async def report(self, name: str, reports: Reports) -> None:
        """Keep the stream of reports open; when it breaks, open another, which starts with the full state."""
        url = f"{self._settings.api}/v1/agents/{name}/reports"
        delay = _FIRST_DELAY
        while True:
            started = asyncio.get_running_loop().time()
            try:
                async with self._session.post(
                    url,
                    data=reports.stream(),
                    headers={**self._authorization(), "Content-Type": "application/x-ndjson"},
                    timeout=_STREAM_TIMEOUT,
                ) as response:
                    log.warning("%s", await _error(url, response))
            except (aiohttp.ClientError, TimeoutError, HairpinError) as error:
                log.warning("%s: %s", url, error or "no answer in time")
            if asyncio.get_running_loop().time() - started > _LONGEST_DELAY:
                delay = _FIRST_DELAY
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def _authorization(self) -> dict[str, str]:
        try:
            token = self._settings.token_file.read_text().strip()
        except OSError as error:
            path = self._settings.token_file
            raise NotFoundError(f"controlPlane.tokenFile: {path} can't be read: {error.strerror}") from error
        return {"Authorization": f"Bearer {token}"}


async def _error(url: str, response: aiohttp.ClientResponse) -> HairpinError:
    text = " ".join((await response.text())[:500].split())
    kind = RefusedError if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) else UnavailableError
    return kind(f"{url}: {response.status} {text}")
