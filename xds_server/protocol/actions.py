"""What a stream's state machine asks of whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from xds_server.model.resource import Resource


class Variant(StrEnum):
    """The two forms of the protocol."""

    SOTW = "sotw"
    DELTA = "delta"


class Status(StrEnum):
    """Why a stream is closed: names of gRPC's status codes."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResponse:
    """A response to write now. All but the nonce is the same for every stream with the same subscription.

    `version` becomes `version_info` (state of the world) or `system_version_info` (delta).
    """

    variant: Variant
    type_url: str
    version: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the resources, in the response's order."""
        return tuple(resource.name for resource in self.resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAck:
    """The client accepted the response of this nonce, which carried this version."""

    type_url: str
    version: str
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordNack:
    """The client refused the response of this nonce and keeps what it had; it is not sent again unchanged."""

    type_url: str
    version: str
    nonce: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStale:
    """A request answered an older response than the last one sent: a newer answer is on its way."""

    type_url: str
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSynced:
    """The client has accepted all that it subscribes to of this type, at this version of the snapshot's type.

    True until the next response of the type is sent. Told also when a version changed only in what the client does
    not subscribe to, so that no response was needed.
    """

    type_url: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseStream:
    """End the stream with this status; the state machine does nothing more."""

    status: Status
    message: str


Record = RecordAck | RecordNack | RecordStale | CloseStream
Action = SendResponse | RecordSynced | Record
