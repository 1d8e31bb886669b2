"""What a laptop needs of whoever keeps sessions: the mesh's own HTTP API, or a Kubernetes API server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from hairpin.errors import HairpinError
from hairpin.model.egress import EgressPolicy
from hairpin.model.environment import RoutingKey
from hairpin.model.session import Session, SessionSpec

RECONNECT_SECONDS = (0.1, 2.0)
"""The first and the longest pause before a watch is opened again; each is twice the last."""


@dataclass(frozen=True, slots=True)
class SessionChanged:
    """The session is there, or has changed; also the first event of each watch."""

    session: Session


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is gone: stopped by its owner elsewhere, or its lease has run out."""

    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSeen:
    """A request that the session took."""

    method: str
    authority: str
    path: str
    status: int
    duration_ms: int
    served: str
    """What became of it at the agent, in Envoy's words: `via_upstream` if this laptop answered."""
    copy: bool = False
    """Whether it was a copy: the cluster has answered the caller."""


@dataclass(frozen=True, slots=True)
class WatchLost:
    """The control plane can't be reached; the watch goes on when it can."""

    error: HairpinError


Event: TypeAlias = SessionChanged | SessionEnded | RequestSeen | WatchLost


class Unset:
    """Left as it is."""


UNSET: Final = Unset()


class SessionStore(Protocol):
    """One developer's sessions, and everyone's to look at."""

    async def version(self) -> str:
        """The version of whoever keeps them."""
        ...

    async def create(self, spec: SessionSpec) -> Session:
        """Claim what `spec` asks for; the session comes with its certificate.

        Raises:
            ConflictError: someone holds the requests; the message names them.
            NotFoundError: there is no such target.
            InvalidFieldError: a field can't be used.
            UnavailableError: the control plane does not answer.
            SkewError: it is of a version that does not go together with ours.
            HairpinError: we may not; or this machine's clock is so far off that the certificate is of no use.
        """
        ...

    async def get(self, name: str) -> Session:
        """One session."""
        ...

    async def list(self) -> list[Session]:
        """Everyone's sessions, in the order of their creation."""
        ...

    async def update(
        self, name: str, *, local_port: int | Unset | None = UNSET, certificate_request: str | Unset = UNSET
    ) -> Session:
        """Change what the laptop keeps up to date: whether, and where, the process listens, and the session's key.

        With a new key, the session that is returned has its certificate.
        """
        ...

    async def delete(self, name: str) -> None:
        """Give the requests back. It is no error if the session has ended already."""
        ...

    def follow(self, name: str) -> AsyncGenerator[Event, None]:
        """What becomes of a session, until it ends; the watch is opened again whenever it breaks off.

        Raises:
            NotFoundError: there is no such session (any more).
            HairpinError: the control plane refuses.
        """
        ...


class ControlPlane(Protocol):
    """Where a developer's sessions are kept."""

    @property
    def routing_key(self) -> RoutingKey | None:
        """What marks an environment's requests; None: that is not ours to read."""
        ...

    @property
    def namespace(self) -> str:
        """The targets', where none is named."""
        ...

    @property
    def title(self) -> str:
        """One line for the user: which one it is; empty where that goes without saying."""
        ...

    async def user(self) -> str:
        """Who we are there."""
        ...

    async def egress_policy(self) -> EgressPolicy | None:
        """Where connections of this namespace's sessions may go; None: nothing is said, or it is not ours to read.

        Raises:
            InvalidFieldError: it can't be read, so the agents refuse everything.
        """
        ...

    def open(self) -> AbstractAsyncContextManager[SessionStore]:
        """Its sessions."""
        ...

    def reread(self) -> bool:
        """Whether it may be another by now; `open` then opens that."""
        ...

    async def moved(self) -> bool:
        """Whether it is another by now, and that one answers."""
        ...


def request_seen(line: Mapping[str, Any]) -> RequestSeen:
    """A request's line, as agents write it."""
    return RequestSeen(
        method=str(line.get("method") or ""),
        authority=str(line.get("authority") or ""),
        path=str(line.get("path") or ""),
        status=int(line.get("status") or 0),
        duration_ms=int(line.get("durationMs") or 0),
        served=str(line.get("served") or ""),
        copy=line.get("copy") not in (None, "", "-"),
    )
