"""What the HTTP APIs have in common, embedded and in Kubernetes: errors, bodies, agents' certificates."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aiohttp import web

import hairpin
from hairpin.api import status_of
from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.model.version import PROTOCOL, Version, version_of
from xds_server.server.tokens import ForbiddenError, UnauthorizedError
from xds_server.sources.leases import utcnow

if TYPE_CHECKING:
    from hairpin.certificates import CertificateAuthority

log = logging.getLogger(__name__)

AGENT_CERTIFICATE_LIFETIME = timedelta(hours=1)
BODY_LIMIT = 256 * 1024
"""Bytes of a request's body."""


async def version(request: web.Request) -> web.Response:
    """Who is this, and what time does it have."""
    del request
    return web.json_response({"version": hairpin.__version__, "protocol": PROTOCOL, "time": utcnow().isoformat()})


def agent_version(request: web.Request) -> Version:
    """Which hairpin the agent is that calls."""
    return version_of(request.headers.get("User-Agent", ""))


async def agent_certificate(request: web.Request, authority: CertificateAuthority, identity: str) -> web.Response:
    """An agent's certificate, for the request in the body and the identity that its token says."""
    document = await json_body(request)
    pem = document.get("certificateRequest")
    if not isinstance(pem, str):
        raise InvalidFieldError("certificateRequest", pem, "is not a string", "send a CSR in PEM")
    certificate = authority.sign(pem, uris=(identity,), lifetime=AGENT_CERTIFICATE_LIFETIME, now=utcnow())
    return web.json_response(
        {
            "certificate": certificate.chain,
            "certificateAuthority": authority.certificate,
            "identity": identity,
            "notAfter": certificate.not_after.isoformat(),
        },
    )


async def json_body(request: web.Request) -> dict[str, Any]:
    """The body, one JSON object.

    Raises:
        InvalidFieldError: it is something else.
    """
    try:
        document = json.loads(await request.read())
    except ValueError as error:
        raise InvalidFieldError("body", str(error), "is not JSON", "send one JSON object") from error
    if not isinstance(document, dict):
        raise InvalidFieldError("body", document, "is not a JSON object", "send one JSON object")
    return document


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer errors as Kubernetes does: a `Status` with its code."""
    try:
        return await handler(request)
    except UnauthorizedError as error:
        return _status(401, "Unauthorized", str(error))
    except ForbiddenError as error:
        return _status(403, "Forbidden", str(error))
    except HairpinError as error:
        code, body = status_of(error)
        return web.json_response(body, status=code)
    except web.HTTPException as error:
        return _status(error.status, error.reason.replace(" ", ""), error.text or error.reason)
    except asyncio.CancelledError:
        raise
    except ConnectionResetError:
        return web.Response(status=499)  # nobody is there to get it: a laptop or an agent was killed
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return _status(500, "InternalError", "the control plane failed; its log has the reason")


def _status(code: int, reason: str, message: str) -> web.Response:
    status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response({**status, "details": {}}, status=code)
