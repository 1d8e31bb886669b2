"""What the API server refuses, as errors of hairpin's. Its own words name the user, the permission and the object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hairpin.errors import ConflictError, HairpinError, InvalidFieldError, NotFoundError, UnavailableError


class ApiError(HairpinError):
    """An answer of the API server that is none of success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        """The HTTP status."""
        self.reason = reason
        """Kubernetes' word for it, such as `AlreadyExists`."""


class ApiUnauthorizedError(ApiError):
    """The API server does not know who we are."""


class ApiForbiddenError(ApiError):
    """It knows, and we may not."""


class ApiNotFoundError(ApiError, NotFoundError):
    """No such object, or no such kind."""


class ApiConflictError(ApiError, ConflictError):
    """The object is another by now, or exists already: `reason` says which."""


class ApiInvalidError(ApiError):
    """The object's schema or an admission policy refuses it."""

    exit_code = InvalidFieldError.exit_code


class ApiGoneError(ApiError):
    """A resource version that the API server no longer has: list again."""


class ApiUnavailableError(ApiError, UnavailableError):
    """The API server can't be reached, or has too much to do."""


class ApiUnreachableError(ApiUnavailableError):
    """It can't be reached: there is no answer at all."""


_KINDS: Mapping[int, type[ApiError]] = {
    400: ApiInvalidError,
    401: ApiUnauthorizedError,
    403: ApiForbiddenError,
    404: ApiNotFoundError,
    409: ApiConflictError,
    410: ApiGoneError,
    422: ApiInvalidError,
    429: ApiUnavailableError,
    500: ApiUnavailableError,
    502: ApiUnavailableError,
    503: ApiUnavailableError,
    504: ApiUnavailableError,
}
_UNAUTHORIZED = 401


def api_error(code: int, status: Mapping[str, Any], method: str, what: str) -> ApiError:
    """The error that a `Status` means.

    Args:
        code: the HTTP status.
        status: Kubernetes' `Status`; what is missing in it is made up.
        method: of the request, and
        what: its path, for a status without a message.
    """
    message = str(status.get("message") or f"{method} {what}: the API server answered {code}")
    if code == _UNAUTHORIZED:
        message = f"the API server does not accept the credentials: {message}; log in again, or name another --context"
    return _KINDS.get(code, ApiError)(code, str(status.get("reason") or ""), message)
