"""The session store in Kubernetes: Sessions are objects there, and the controller answers in their status."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from cryptography import x509

from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError, UnavailableError
from hairpin.kubernetes import api
from hairpin.kubernetes.api import Api, JsonObject
from hairpin.kubernetes.errors import (
    ApiConflictError,
    ApiGoneError,
    ApiNotFoundError,
)
from hairpin.kubernetes.kinds import SESSIONS
from hairpin.model.names import session_name
from hairpin.model.session import Condition, Phase, Session, SessionSpec
from hairpin.model.session_json import spec_to_json, told_session
from hairpin.model.version import check_laptop
from local_proxy.clock import ClockError, clock_problem
from local_proxy.kubernetes_refusals import Explainer, may_pass, refusal
from local_proxy.session_store import (
    RECONNECT_SECONDS,
    UNSET,
    Event,
    SessionChanged,
    SessionEnded,
    Unset,
    WatchLost,
)

ANSWER_SECONDS = 30.0
"""How long the controller may take to answer a claim, or a request for a certificate. When its leader has just died, the next
one needs the lease's five seconds, the agents' reports, and perhaps the end of a session of ours that it finds."""
DISCARD_SECONDS = 2.0
"""How long taking back a claim that came to nothing may take; after that it runs out by itself."""
_GENERATED = "00000"
"""As long as what the API server appends to a `generateName`."""


class KubernetesSessions:
    """One developer's sessions in one namespace.

    Args:
        server: the API server.
        namespace: whose sessions; `list` has everyone's in it.
        user: says who we are to the API server.
        everywhere: whether `list` has those of all namespaces.
    """

    def __init__(
        self, server: Api, namespace: str, user: Callable[[], Awaitable[str]], *, everywhere: bool = False
    ) -> None:
        self._api = server
        self._namespace = namespace
        self._user = user
        self._everywhere = everywhere
        self._words = Explainer(server, namespace)
        self._uids: dict[str, str] = {}

    async def version(self) -> str:
        """The API server's version."""
        async with self._words.told():
            return str((await self._api.call("GET", "/version")).get("gitVersion", ""))

    async def create(self, spec: SessionSpec) -> Session:
        """Claim what `spec` asks for, and wait until the controller has certified it.

        Raises:
            ConflictError: someone holds the requests; the message names them.
            NotFoundError: there is no such target; or hairpin is not installed.
            ServerRefusalError: a field can't be used.
            UnavailableError: the API server, or the controller, does not answer.
            SkewError: the controller is of a version that does not go together with ours.
            HairpinError: we may not; or this machine's clock is so far off that the certificate is of no use.
        """
        async with self._words.told():
            owner = await self._user()
            prefix = session_name(owner, spec.target, spec.environment, _GENERATED).removesuffix(_GENERATED)
            document = {
                "apiVersion": SESSIONS.api_version,
                "kind": SESSIONS.name,
                "metadata": {"generateName": prefix, "namespace": self._namespace},
                "spec": spec_to_json(dataclasses.replace(spec, owner=owner)),
            }
            problem, created = await self._post(document)
            try:
                return await self._usable(created, problem)
            except BaseException:
                await self._discard(created)
                raise

    async def _post(self, document: JsonObject) -> tuple[str | None, JsonObject]:
        """The new object, and what is wrong with our clock."""
        async with self._api.stream("POST", SESSIONS.path(self._namespace), body=document, total=30.0) as response:
            return clock_problem(response.headers), await response.json()

    async def _usable(self, document: JsonObject, problem: str | None) -> Session:
        if problem:
            raise ClockError(problem)  # its tunnel would never come up
        session = await self._certified(document)
        check_laptop(session.spec.client, session.status.server)
        return session

    async def get(self, name: str) -> Session:
        """One session."""
        async with self._words.told():
            return self._session(await self._api.get(SESSIONS, name, namespace=self._namespace))

    async def list(self) -> list[Session]:
        """Everyone's sessions, in the order of their creation."""
        async with self._words.told():
            found = await self._api.list(SESSIONS, namespace="" if self._everywhere else self._namespace)
        sessions = [self._session(document) for document in found["items"]]
        return sorted(sessions, key=lambda session: (session.created, session.namespace, session.name))

    async def update(
        self, name: str, *, local_port: int | Unset | None = UNSET, certificate_request: str | Unset = UNSET
    ) -> Session:
        """Change what the laptop keeps up to date. With a new key, its certificate is waited for."""
        spec: dict[str, Any] = {}
        if not isinstance(local_port, Unset):
            spec["localPort"] = local_port
        if not isinstance(certificate_request, Unset):
            spec["certificateRequest"] = certificate_request
        async with self._words.told():
            try:
                document = await self._api.patch(SESSIONS, name, {"spec": spec}, namespace=self._namespace)
            except ApiNotFoundError as error:
                if await self._words.is_installed():
                    raise
                raise UnavailableError(str(error)) from error  # an API server that begins has no custom resources yet
            if isinstance(certificate_request, Unset):
                return self._session(document)
            return await self._certified(document)

    async def delete(self, name: str) -> None:
        """Give the requests back. It is no error if the session has ended already, or another one has its name."""
        async with self._words.told():
            with contextlib.suppress(ApiConflictError):
                await self._api.delete(SESSIONS, name, namespace=self._namespace, uid=self._uids.get(name, ""))

    async def follow(self, name: str) -> AsyncGenerator[Event, None]:
        """What becomes of a session, until it ends; the watch is opened again whenever it breaks off.

        Raises:
            NotFoundError: there is no such session (any more).
            HairpinError: the API server refuses.
        """
        first, longest = RECONNECT_SECONDS
        pause, lost, known, broken = first, False, False, 0.0
        while True:
            try:
                async with contextlib.aclosing(self._watched(name)) as events:
                    async for event in events:
                        pause, lost, known, broken = first, False, True, 0.0
                        yield event
                        if isinstance(event, SessionEnded):
                            return
            except ApiGoneError:
                pass
            except HairpinError as error:
                broken = broken or time.monotonic()
                if not may_pass(error, time.monotonic() - broken if known else math.inf):
                    raise
                if not lost:
                    lost = True
                    yield WatchLost(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _watched(self, name: str) -> AsyncGenerator[Event, None]:
        """The session as it is, and then what happens to it, for as long as the API server lets watch."""
        async with self._words.told():
            found = await self._api.list(SESSIONS, namespace=self._namespace, fields=f"metadata.name={name}")
            if not found["items"] or self._is_another(found["items"][0]):
                raise NotFoundError(f"there is no session {name!r} in namespace {self._namespace}")
            yield SessionChanged(self._session(found["items"][0]))
            version = found["metadata"]["resourceVersion"]
            while True:
                async with contextlib.aclosing(self._changes(name, version)) as events:
                    before = version
                    async for event in events:
                        version = event.object["metadata"]["resourceVersion"]
                        if event.type == "DELETED":
                            yield SessionEnded(self._session(event.object))
                        elif event.type != "BOOKMARK":
                            yield SessionChanged(self._session(event.object))
                if version == before:
                    return  # one that ends at once is to be asked for less often

    def _is_another(self, document: JsonObject) -> bool:
        known = self._uids.get(document["metadata"]["name"])
        return known is not None and known != document["metadata"]["uid"]

    # The controller's answer

    async def _certified(self, document: JsonObject) -> Session:
        """The session as soon as it has a certificate of the key that it asks for.

        Raises:
            UnavailableError: there is none in time.
            HairpinError: the claim is refused.
        """
        session = self._session(document)
        try:
            async with asyncio.timeout(ANSWER_SECONDS), contextlib.aclosing(self._states(document)) as states:
                async for session in states:
                    if session.status.phase is Phase.REFUSED:
                        raise refusal(session)
                    if _is_certified(session):
                        return session
        except TimeoutError:
            raise self._unanswered(session) from None
        raise NotFoundError(f"session {session.name} ended before it had a certificate")

    async def _states(self, document: JsonObject) -> AsyncGenerator[Session, None]:
        """The session now, and after each change until it is deleted."""
        name = document["metadata"]["name"]
        while True:
            yield self._session(document)
            try:
                async with contextlib.aclosing(self._changes(name, document["metadata"]["resourceVersion"])) as events:
                    async for event in events:
                        if event.type == "DELETED":
                            return
                        if event.type != "BOOKMARK":
                            yield self._session(event.object)
            except ApiGoneError:  # an API server that has just begun may say so of the last version, too
                await asyncio.sleep(RECONNECT_SECONDS[0])
            document = await self._api.get(SESSIONS, name, namespace=self._namespace)

    def _changes(self, name: str, version: str) -> AsyncGenerator[api.Event, None]:
        return self._api.watch(SESSIONS, namespace=self._namespace, version=version, fields=f"metadata.name={name}")

    def _unanswered(self, session: Session) -> UnavailableError:
        waited = f"{ANSWER_SECONDS:.0f} s"
        if conditions := session.status.conditions:
            return UnavailableError(
                f"no certificate within {waited}: {'; '.join(condition.message for condition in conditions)}"
            )
        return UnavailableError(
            f"the control plane has not answered for {waited}: is the controller running in hairpin-system, and does it "
            f"serve namespace {self._namespace}?"
        )

    async def _discard(self, document: JsonObject) -> None:
        metadata = document["metadata"]
        with contextlib.suppress(HairpinError, TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                await self._api.delete(
                    SESSIONS, metadata["name"], namespace=self._namespace, uid=metadata.get("uid", "")
                )

    # Helpers

    def _session(self, document: JsonObject) -> Session:
        metadata = document["metadata"]
        if metadata.get("namespace") == self._namespace:
            self._uids.setdefault(metadata["name"], metadata.get("uid", ""))
        return session_of(document)


def session_of(document: JsonObject) -> Session:
    """A Session object. One that a newer hairpin wrote, in words unknown here, still has a name and an owner."""
    try:
        session = told_session(document)
    except InvalidFieldError as error:
        kept = {key: document.get(key) for key in ("apiVersion", "kind", "metadata")}
        session = told_session({**kept, "spec": {"mode": "egress"}})
        status = dataclasses.replace(session.status, conditions=(Condition(type="Unreadable", message=str(error)),))
        session = dataclasses.replace(session, status=status)
    owner = (document.get("spec") or {}).get("owner", "")
    return dataclasses.replace(session, owner=str(owner))


def _is_certified(session: Session) -> bool:
    """Whether its certificate is of the key that it asks for."""
    if not session.status.certificate:
        return False
    certificate = x509.load_pem_x509_certificate(session.status.certificate.encode())
    request = x509.load_pem_x509_csr(session.spec.certificate_request.encode())
    return certificate.public_key() == request.public_key()
