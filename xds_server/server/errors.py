"""Why a stream is refused; each class carries its status, so that nobody has to translate."""

from __future__ import annotations

from typing import ClassVar

from xds_server.protocol.actions import Status


class StreamRefusedError(Exception):
    """A stream that ends with a status other than OK. The message goes to the proxy."""

    status: ClassVar[Status] = Status.INTERNAL


class InvalidRequestError(StreamRefusedError):
    """A request that the protocol does not allow."""

    status = Status.INVALID_ARGUMENT


class UnauthenticatedProxyError(StreamRefusedError):
    """A proxy without a certificate that says who it is."""

    status = Status.UNAUTHENTICATED


class ForbiddenProxyError(StreamRefusedError):
    """A proxy that asks for what its certificate does not allow."""

    status = Status.PERMISSION_DENIED


class NotReadyError(StreamRefusedError):
    """The server does not know everything yet, or is about to end: come again."""

    status = Status.UNAVAILABLE
