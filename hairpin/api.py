"""The session API's connection file, and what client and server must agree on: paths and errors.

The mesh writes one file per developer; `hairpin run` and its neighbours read it. YAML, readable by its owner alone:

    server: https://127.0.0.1:15443
    certificateAuthorityData: |
      -----BEGIN CERTIFICATE-----
      …
    token: …
    user: alice
    routingKey: {carrier: header, name: x-env}
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from hairpin.errors import (
    ConflictError,
    HairpinError,
    InvalidFieldError,
    NotFoundError,
    SkewError,
    UnavailableError,
)
from hairpin.files import write_private
from hairpin.model.environment import Carrier, RoutingKey

VERSION = "/v1/version"
SESSIONS = "/v1/sessions"
CERTIFICATES = "/v1/certificates"
AGENTS = "/v1/agents"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FIELDS = ("server", "certificateAuthorityData", "token", "user", "routingKey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Developer:
    """How one developer reaches the control plane."""

    server: str
    """The session API's URL, https, without a path."""
    certificate_authority: str
    """What to trust at the server, in PEM; nothing else is trusted."""
    token: str = field(repr=False)
    user: str
    """Who the token makes one; for messages only: the server goes by the token."""
    routing_key: RoutingKey = field(default_factory=RoutingKey)


def state_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where hairpin keeps what outlives a process: `$XDG_STATE_HOME/hairpin`, by default `~/.local/state/hairpin`."""
    environ = os.environ if environ is None else environ
    # The XDG specification has a relative path ignored.
    state = Path(environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "hairpin"


def developers_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where the embedded mesh writes its developers' files, `USER.yaml` each."""
    return state_directory(environ) / "mesh" / "developers"


def find_developer(config: str | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The developer's file: the flag's, else HAIRPIN_CONFIG's, else the one that the embedded mesh wrote for this user.

    Raises:
        NotFoundError: there is none; the message says how to get one.
    """
    environ = os.environ if environ is None else environ
    for source, named in (("--config", config), ("HAIRPIN_CONFIG", environ.get("HAIRPIN_CONFIG"))):
        if named:
            path = Path(named).expanduser()
            if not path.is_file():
                raise NotFoundError(f"{source}: there is no file {path}; name the file that the mesh wrote for you")
            return path
    directory = developers_directory(environ)
    path = directory / f"{_user(environ)}.yaml"
    if path.is_file():
        return path
    others = sorted(file.name for file in directory.glob("*.yaml")) if directory.is_dir() else []
    if others:
        raise NotFoundError(
            f"the mesh has no file {path.name} for you in {directory}, only {', '.join(others)}: "
            f"name one with --config, as in --config {directory / others[0]}"
        )
    raise NotFoundError(
        f"no mesh found ({path} does not exist): start one with `hairpin mesh up`, "
        "or name its file with --config or HAIRPIN_CONFIG"
    )


def _user(environ: Mapping[str, str]) -> str:
    name = environ.get("USER") or environ.get("LOGNAME")
    if name:
        return name
    import pwd  # noqa: PLC0415 - rarely needed

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def read_developer(path: Path) -> Developer:
    """Read a developer's file.

    Raises:
        HairpinError: others can read it, so that its token is no secret; or it can't be read.
        InvalidFieldError: a field is missing or wrong.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _OTHERS:
                raise HairpinError(
                    f"{path}: others on this machine may read its token (its mode is {mode:04o}): "
                    f"`chmod 600 {path}`, and if it is no private machine have the mesh issue a new one"
                )
            document = yaml.safe_load(file)
    except OSError as error:
        raise HairpinError(f"{path}: can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HairpinError(f"{path}: is not YAML: {error}") from error
    return _developer(document, str(path))


def _developer(document: Any, where: str) -> Developer:
    if not isinstance(document, dict):
        raise InvalidFieldError(where, document, "is no mapping", f"it needs the fields {', '.join(_FIELDS)}")
    unknown = sorted(set(map(str, document)) - set(_FIELDS))
    if unknown:
        raise InvalidFieldError(
            f"{where}: {unknown[0]}", document[unknown[0]], "is unknown", "upgrade hairpin, or drop it"
        )
    server, authority, token, user = (_text(document, name, where) for name in _FIELDS[:4])
    url = urlsplit(server)
    if url.scheme != "https" or not url.hostname or url.path not in ("", "/"):
        raise InvalidFieldError(f"{where}: server", server, "is no https URL", "write https://HOST:PORT")
    if "BEGIN CERTIFICATE" not in authority:
        remedy = "copy the mesh's file again"
        raise InvalidFieldError(
            f"{where}: certificateAuthorityData", authority[:20], "is no certificate in PEM", remedy
        )
    routing_key = _routing_key(document.get("routingKey"), where)
    return Developer(
        server=server.rstrip("/"), certificate_authority=authority, token=token, user=user, routing_key=routing_key
    )


def _text(document: dict[str, Any], name: str, where: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidFieldError(f"{where}: {name}", value, "is no text", "have the mesh write the file again")
    return value


def _routing_key(value: Any, where: str) -> RoutingKey:
    if value is None:
        return RoutingKey()
    try:
        return RoutingKey(Carrier(value["carrier"]), str(value["name"]))
    except (TypeError, KeyError, ValueError) as error:
        remedy = f"write {{carrier: {'|'.join(Carrier)}, name: NAME}}"
        raise InvalidFieldError(f"{where}: routingKey", value, "is no routing key", remedy) from error


def write_developer(path: Path, developer: Developer) -> None:
    """Write a developer's file: readable by its owner alone from its first byte on, and complete or not there at all."""
    document = {
        "server": developer.server,
        "certificateAuthorityData": developer.certificate_authority,
        "token": developer.token,
        "user": developer.user,
        "routingKey": {"carrier": developer.routing_key.carrier.value, "name": developer.routing_key.name},
    }
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())


def status_of(error: HairpinError) -> tuple[int, dict[str, Any]]:
    """An error as the API answers it: HTTP status and body (Kubernetes' `Status`)."""
    code, reason = next((code, reason) for kind, code, reason in _STATUSES if isinstance(error, kind))
    details: dict[str, Any] = {}
    if isinstance(error, InvalidFieldError):
        details = {"field": error.field, "value": error.value, "problem": error.problem, "remedy": error.remedy}
    status = {"kind": "Status", "status": "Failure", "code": code.value, "reason": reason, "message": str(error)}
    return code.value, {**status, "details": details}


def error_of(code: int, body: Any) -> HairpinError:
    """The error that an answer of the API means, as its message stands; the opposite of `status_of`."""
    body = body if isinstance(body, dict) else {}
    message = str(body.get("message") or f"the control plane answered {code}")
    details = body.get("details")
    if code == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(details, dict) and "field" in details:
        if {"problem", "remedy"} <= details.keys():
            return InvalidFieldError(
                str(details["field"]), details.get("value"), str(details["problem"]), str(details["remedy"])
            )
        field_name = str(details["field"])
        return ServerRefusalError(message if field_name in message else f"{field_name}: {message}")
    kinds: dict[int, type[HairpinError]] = {
        HTTPStatus.NOT_FOUND: NotFoundError,
        HTTPStatus.CONFLICT: ConflictError,
        HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
        HTTPStatus.UPGRADE_REQUIRED: SkewError,
        HTTPStatus.UNPROCESSABLE_ENTITY: ServerRefusalError,
        HTTPStatus.BAD_REQUEST: ServerRefusalError,
    }
    return kinds.get(code, HairpinError)(message)


class ServerRefusalError(HairpinError):
    """The control plane found a field wrong, and said so in words of its own."""

    exit_code = InvalidFieldError.exit_code


_STATUSES: tuple[tuple[type[HairpinError], HTTPStatus, str], ...] = (
    (InvalidFieldError, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid"),
    (ServerRefusalError, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid"),
    (NotFoundError, HTTPStatus.NOT_FOUND, "NotFound"),
    (ConflictError, HTTPStatus.CONFLICT, "Conflict"),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable"),
    (SkewError, HTTPStatus.UPGRADE_REQUIRED, "UpgradeRequired"),
    (HairpinError, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError"),
)
