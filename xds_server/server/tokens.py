"""Who calls the API: bearer tokens, kept as hashes. In Kubernetes, TokenReview takes this place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hairpin.errors import HairpinError
from hairpin.tokens import token_hash

if TYPE_CHECKING:
    from collections.abc import Iterable


class Role(StrEnum):
    """What a caller may do."""

    DEVELOPER = "developer"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: a developer's user name, or an agent replica's name."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A token by its SHA-256, and whose it is."""

    sha256: str
    caller: Caller


class UnauthorizedError(HairpinError):
    """No token, or one that nobody has."""


class ForbiddenError(HairpinError):
    """The caller may not do this."""


class Tokens:
    """Looks a bearer token up. Hashes are compared by the dictionary: timing tells nothing of the token itself."""

    def __init__(self, entries: Iterable[TokenEntry]) -> None:
        self._callers = {entry.sha256: entry.caller for entry in entries}

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller behind an `Authorization` header.

        Raises:
            UnauthorizedError: it is missing, not a bearer token, or unknown.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorizedError("no bearer token; `hairpin` reads it from the developer file of the mesh")
        caller = self._callers.get(token_hash(token.strip()))
        if caller is None:
            raise UnauthorizedError("the token is not known here: the developer file is of another or an earlier mesh")
        return caller
