"""The embedded mesh's session store: the client of its HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp

from hairpin.api import SESSIONS, VERSION, Developer, error_of
from hairpin.errors import HairpinError, NotFoundError, SkewError, UnavailableError
from hairpin.model.session import Session, SessionSpec
from hairpin.model.session_json import spec_to_json, told_session
from hairpin.model.session_shapes import API_VERSION
from hairpin.model.version import check_laptop
from hairpin.sockets import watched_socket
from local_proxy.clock import clock_problem
from local_proxy.session_store import (
    RECONNECT_SECONDS,
    UNSET,
    Event,
    SessionChanged,
    SessionEnded,
    Unset,
    WatchLost,
    request_seen,
)

ANSWER_SECONDS = 10.0
"""How long an answer may take."""
CONNECT_SECONDS = 3.0
"""How long a connection may take."""
_LINE_LIMIT = 1 << 20  # a Session with its certificates is some kilobytes long
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID and …HAS_EXPIRED, openssl/x509_vfy.h


class SessionClient:
    """One developer's connection to the control plane; an async context manager.

    Args:
        developer: where it is, and who we are. Nothing but its certificate authority is trusted.
    """

    def __init__(self, developer: Developer) -> None:
        self._developer = developer
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        try:
            context = ssl.create_default_context(cadata=self._developer.certificate_authority)
        except ssl.SSLError as error:
            raise HairpinError(
                f"certificateAuthorityData of the developer's file is no certificate: {error}"
            ) from error
        self._http = self._session(context, {"Authorization": f"Bearer {self._developer.token}"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def version(self) -> str:
        """The control plane's version; nobody is asked who they are."""
        return str((await self._call("GET", VERSION)).get("version", ""))

    async def create(self, spec: SessionSpec) -> Session:
        """Claim what `spec` asks for.

        Raises:
            ConflictError: someone holds the requests; the message names them.
            NotFoundError: there is no such target.
            InvalidFieldError: a field can't be used.
            UnavailableError: the control plane does not answer.
            SkewError: it is of a version that does not go together with ours.
            HairpinError: this machine's clock is so far off that the certificate is of no use.
        """
        document = {"apiVersion": API_VERSION, "kind": "Session", "spec": spec_to_json(spec)}
        session = _session(await self._call("POST", SESSIONS, document, judge_clock=True))
        try:
            check_laptop(session.spec.client, session.status.server)
        except SkewError:
            with contextlib.suppress(HairpinError):
                await self.delete(session.name)
            raise
        return session

    async def get(self, name: str) -> Session:
        """One session."""
        return _session(await self._call("GET", f"{SESSIONS}/{name}"))

    async def list(self) -> list[Session]:
        """Everyone's sessions, in the order of their creation."""
        return [_session(item) for item in (await self._call("GET", SESSIONS)).get("items", [])]

    async def update(
        self,
        name: str,
        *,
        local_port: int | Unset | None = UNSET,
        certificate_request: str | Unset = UNSET,
    ) -> Session:
        """Change what the laptop keeps up to date: whether, and where, the process listens, and the session's key."""
        spec: dict[str, Any] = {}
        if not isinstance(local_port, Unset):
            spec["localPort"] = local_port
        if not isinstance(certificate_request, Unset):
            spec["certificateRequest"] = certificate_request
        return _session(await self._call("PATCH", f"{SESSIONS}/{name}", {"spec": spec}))

    async def delete(self, name: str) -> None:
        """Give the requests back. It is no error if the session has ended already."""
        with contextlib.suppress(NotFoundError):
            await self._call("DELETE", f"{SESSIONS}/{name}")

    async def follow(self, name: str) -> AsyncGenerator[Event, None]:
        """What becomes of a session, until it ends; the watch is opened again whenever it breaks off.

        Raises:
            NotFoundError: there is no such session (any more).
            HairpinError: the control plane refuses.
        """
        first, longest = RECONNECT_SECONDS
        pause, lost = first, False
        while True:
            try:
                async with contextlib.aclosing(self._watch(name)) as events:
                    async for event in events:
                        pause, lost = first, False
                        yield event
                        if isinstance(event, SessionEnded):
                            return
            except UnavailableError as error:
                if not lost:
                    lost = True
                    yield WatchLost(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _watch(self, name: str) -> AsyncGenerator[Event, None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        url = f"{SESSIONS}/{name}?watch=true"
        async with self._errors_explained(), self._open.get(url, timeout=timeout) as response:
            if response.status != HTTPStatus.OK:
                raise error_of(response.status, await _body(response))
            while line := await response.content.readline():
                event = _event(json.loads(line))
                if event is not None:
                    yield event

    async def _call(
        self, method: str, path: str, document: Mapping[str, Any] | None = None, *, judge_clock: bool = False
    ) -> dict[str, Any]:
        async with self._errors_explained(), self._open.request(method, path, json=document) as response:
            body = await _body(response)
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise error_of(response.status, body)
            if judge_clock and (problem := clock_problem(response.headers)):
                name = body.get("metadata", {}).get("name", "")
                with contextlib.suppress(HairpinError):
                    await self.delete(name)  # its tunnel would never come up
                raise HairpinError(problem)
            return body

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("the client is used outside its context")
        return self._http

    def _session(self, context: ssl.SSLContext, headers: Mapping[str, str]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            self._developer.server,
            connector=aiohttp.TCPConnector(ssl=context, socket_factory=watched_socket),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
            read_bufsize=_LINE_LIMIT,
            trust_env=False,  # the way to the control plane is no matter of proxy variables
        )

    @contextlib.asynccontextmanager
    async def _errors_explained(self) -> AsyncIterator[None]:
        server = self._developer.server
        try:
            yield
        except aiohttp.ClientConnectorCertificateError as error:
            raise await self._certificate_error(error.certificate_error) from error
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or str(error.os_error)
            raise UnavailableError(
                f"the control plane at {server} can't be reached ({reason}): is the mesh up? `hairpin mesh up` starts "
                "it; if it runs elsewhere, look at `server` in your file"
            ) from error
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise UnavailableError(f"the connection to the control plane at {server} was lost") from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if isinstance(error, HairpinError):
                raise
            reason = str(error) or f"no answer within {ANSWER_SECONDS:.0f} s"
            raise UnavailableError(
                f"the control plane at {server} does not answer as it should ({reason}): is it hairpin's? its log tells more"
            ) from error

    async def _certificate_error(self, error: Exception) -> HairpinError:
        server = self._developer.server
        code = getattr(error, "verify_code", 0)
        if code in (_NOT_YET_VALID, _EXPIRED):
            problem = await self._ask_clock()
            if problem:
                return HairpinError(problem)
            state = "has expired" if code == _EXPIRED else "is not valid yet"
            return UnavailableError(f"the certificate of the control plane at {server} {state}: restart the mesh")
        reason = getattr(error, "verify_message", "") or str(error)
        return UnavailableError(
            f"what answers at {server} is not the mesh that your file is for ({reason}): the mesh has been made anew, or "
            "another one has its port; take the file that it wrote for you"
        )

    async def _ask_clock(self) -> str | None:
        # A clock that is off makes a good certificate look bad, and then what time it is must be asked of one that
        # can't be trusted: only to explain the failure, and without our token.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            async with self._session(context, {}) as http, http.get(VERSION) as response:
                return clock_problem(response.headers)
        except (aiohttp.ClientError, TimeoutError):
            return None


async def _body(response: aiohttp.ClientResponse) -> dict[str, Any]:
    content = await response.read()
    try:
        body = json.loads(content) if content else {}
    except ValueError:
        # A proxy's page, perhaps: its status is what there is to tell.
        return {"message": f"the control plane answered {response.status} {response.reason}"}
    return body if isinstance(body, dict) else {}


def _session(document: dict[str, Any]) -> Session:
    return told_session(document)


def _event(document: Mapping[str, Any]) -> Event | None:
    match document.get("type"):
        case "ADDED" | "MODIFIED":
            return SessionChanged(_session(document["object"]))
        case "DELETED":
            return SessionEnded(_session(document["object"]))
        case "REQUEST":
            return request_seen(document["request"])
    return None  # of a newer control plane
