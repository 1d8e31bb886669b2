"""What the API server and the controller refuse, in words that say what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

from hairpin.api import ServerRefusalError
from hairpin.errors import ConflictError, HairpinError, NotFoundError, SkewError, UnavailableError
from hairpin.kubernetes.api import Api
from hairpin.kubernetes.errors import (
    ApiError,
    ApiForbiddenError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnauthorizedError,
    ApiUnavailableError,
)
from hairpin.kubernetes.kinds import SESSIONS
from hairpin.model.session import Session

BORNE_SECONDS = 60.0
"""How long a refusal is borne after all was well: an API server that has just begun knows neither roles nor resources."""
_HELD = ("Held", "OverlappingWorkloads")
_UNKNOWN_TARGET = "NoSuchTarget"
_SKEW = "VersionSkew"
_REFUSED = "Refused"
_DENIED = re.compile(r"ValidatingAdmissionPolicy '.*?' (?:with binding '.*?' )?denied request: (.*)", re.DOTALL)
_INVALID = re.compile(r"(?:Session\.hairpin\.dev|sessions\.hairpin\.dev) \".*?\" is invalid: (.*)", re.DOTALL)
_MAY_NOT = re.compile(r"\bUser \".*\" cannot ")


class NotInstalledError(NotFoundError):
    """The API server has no Sessions."""


class Explainer:
    """Says in words what the API server refuses.

    Args:
        server: the API server.
        namespace: whose sessions are asked for.
    """

    def __init__(self, server: Api, namespace: str) -> None:
        self._api = server
        self._namespace = namespace

    @contextlib.asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """What the API server refuses, in words that say what to do."""
        try:
            yield
        except ApiError as error:
            told = await self._explained(error)
            if told is error:
                raise
            raise told from error
        except HairpinError as error:
            if type(error) is HairpinError:  # credentials: an exec plugin that fails now may not later
                raise UnavailableError(str(error)) from error
            raise

    async def _explained(self, error: ApiError) -> HairpinError:
        text = str(error)
        if denied := _DENIED.search(text):
            return HairpinError(denied[1].strip())
        if isinstance(error, ApiForbiddenError) and _MAY_NOT.search(text):
            return HairpinError(
                f"{text}; the ClusterRole hairpin-developer allows it: ask an operator to bind it to you in namespace "
                f"{self._namespace}"
            )
        if isinstance(error, ApiUnauthorizedError):
            return UnavailableError(text)  # until they log in again
        if isinstance(error, ApiInvalidError):
            invalid = _INVALID.search(text)
            return ServerRefusalError(invalid[1].strip() if invalid else text)
        if isinstance(error, ApiNotFoundError) and not await self.is_installed():
            return NotInstalledError(
                f"hairpin is not installed in the cluster at {self._api.server}: an operator does it with "
                "`hairpin install`; or name another --context"
            )
        return error

    async def is_installed(self) -> bool:
        """Whether it has Sessions; yes, if nobody knows."""
        try:
            return await self._api.served(SESSIONS)
        except ApiUnavailableError:
            return True  # nobody knows


def refusal(session: Session) -> HairpinError:
    """The error that says why a session is refused."""
    reasons = [condition for condition in session.status.conditions if condition.reason == _REFUSED]
    message = "; ".join(condition.message for condition in reasons) or f"session {session.name} is refused"
    kinds = {condition.type for condition in reasons}
    if kinds & {*_HELD}:
        return ConflictError(message)
    if _SKEW in kinds:
        return SkewError(message)
    return NotFoundError(message) if _UNKNOWN_TARGET in kinds else ServerRefusalError(message)


def may_pass(error: HairpinError, seconds: float) -> bool:
    """Whether something that keeps a watch from working may go away, so many seconds after it broke."""
    if isinstance(error, UnavailableError):
        return True
    gone = isinstance(error, NotFoundError) and not isinstance(error, NotInstalledError)
    return not gone and seconds < BORNE_SECONDS
