"""The session API: HTTPS and JSON, for laptops and agents. The same objects as Kubernetes will hold."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hairpin.errors import InvalidFieldError
from hairpin.model.mesh import AGENT
from hairpin.model.session_json import session_from_json, session_to_json
from hairpin.model.version import check_agent, check_laptop, stated_version
from xds_server.server.http import BODY_LIMIT, agent_certificate, agent_version, errors, json_body, version
from xds_server.server.tokens import Caller, ForbiddenError, Role, Tokens
from xds_server.server.watch import Watchers
from xds_server.sources.claims import effective_match
from xds_server.sources.leases import utcnow
from xds_server.sources.sessions import Change, SessionTable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hairpin.certificates import CertificateAuthority
    from hairpin.model.match import Match
    from hairpin.model.session import Session
    from xds_server.server.registry import ProxyRegistry
    from xds_server.server.settle import Settler

log = logging.getLogger(__name__)


class SessionApi:
    """Handlers of the API.

    Args:
        table: the sessions.
        tokens: who may call.
        authority: signs the agents' certificates.
        validate: raises InvalidFieldError for a match that Envoy would refuse.
        registry: the proxies, for `GET /v1/proxies`.
        settler: waits for sidecars.
    """

    def __init__(
        self,
        table: SessionTable,
        tokens: Tokens,
        authority: CertificateAuthority,
        *,
        validate: Callable[[Match], Awaitable[None]],
        registry: ProxyRegistry,
        settler: Settler,
    ) -> None:
        self._table = table
        self._tokens = tokens
        self._authority = authority
        self._validate = validate
        self._registry = registry
        self._settler = settler
        self._watchers = Watchers()
        table.listeners.append(self._on_change)

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[errors], client_max_size=BODY_LIMIT)
        app.add_routes(
            [
                web.get("/v1/version", version),
                web.get("/v1/sessions", self.list_sessions),
                web.post("/v1/sessions", self.create_session),
                web.get("/v1/sessions/{name}", self.get_session),
                web.patch("/v1/sessions/{name}", self.patch_session),
                web.delete("/v1/sessions/{name}", self.delete_session),
                web.get("/v1/proxies", self.list_proxies),
                web.post("/v1/certificates", self.create_certificate),
                web.post("/v1/agents/{name}/reports", self.reports),
            ]
        )
        return app

    def close(self) -> None:
        """End the watches, so that the server can stop."""
        self._watchers.close()

    # Developers

    async def list_sessions(self, request: web.Request) -> web.Response:
        """Everyone sees who holds what; certificates are left out."""
        self._caller(request, Role.DEVELOPER)
        return web.json_response({"items": [_public(session) for session in self._table.sessions]})

    async def create_session(self, request: web.Request) -> web.Response:
        """A new claim of the caller's."""
        caller = self._caller(request, Role.DEVELOPER)
        document = await json_body(request)
        check_laptop(stated_version(document))
        spec = session_from_json(document).spec
        if spec.target is not None:
            await self._validate(effective_match(self._table.mesh, spec))
        session = self._table.create(caller.name, spec, utcnow())
        log.info("session %s of %s: %s", session.name, session.owner, session.status.resolved_target or "egress")
        return web.json_response(session_to_json(session), status=201)

    async def get_session(self, request: web.Request) -> web.StreamResponse:
        """One session, or with `watch=true` what becomes of it."""
        caller = self._caller(request, Role.DEVELOPER)
        session = self._owned(request, caller) if request.query.get("watch") else self._table.get(_name(request))
        if request.query.get("watch"):
            return await self._watch(request, session)
        return web.json_response(session_to_json(session) if session.owner == caller.name else _public(session))

    async def patch_session(self, request: web.Request) -> web.Response:
        """A JSON merge patch (RFC 7396) of `spec.localPort` and `spec.certificateRequest`."""
        caller = self._caller(request, Role.DEVELOPER)
        session = self._owned(request, caller)
        change = _spec_patch(await json_body(request))
        session = self._table.patch(session.name, utcnow(), **change)
        await self._settle(session)
        return web.json_response(session_to_json(session))

    async def delete_session(self, request: web.Request) -> web.Response:
        """The owner gives the requests back."""
        caller = self._caller(request, Role.DEVELOPER)
        session = self._table.delete(self._owned(request, caller).name)
        log.info("session %s of %s ended by its owner", session.name, session.owner)
        await self._settle(session)
        return web.json_response(session_to_json(session))

    async def list_proxies(self, request: web.Request) -> web.Response:
        """What each proxy has acknowledged, and what it refused and why."""
        self._caller(request, Role.DEVELOPER)
        return web.json_response({"items": [proxy.to_json() for proxy in self._registry.proxies()]})

    # Agents

    async def create_certificate(self, request: web.Request) -> web.Response:
        """The agent's certificate, for its service account's token."""
        self._caller(request, Role.AGENT)
        identity = self._table.mesh.identity(AGENT)
        return await agent_certificate(request, self._authority, identity)

    async def reports(self, request: web.Request) -> web.Response:
        """A replica's reports, as long as its request's body goes on. When it ends, the replica is gone."""
        caller = self._caller(request, Role.AGENT)
        agent = _name(request)
        if caller.name != agent:
            raise ForbiddenError(f"the token is {caller.name}'s, not {agent}'s")
        self._table.agent_states(agent, agent_version(request).text)
        try:
            async for line in request.content:
                self._report(agent, json.loads(line))
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise InvalidFieldError("report", str(error), "can't be read", "send one JSON object a line") from error
        finally:
            log.info("agent %s no longer reports", agent)
            self._table.agent_gone(agent, utcnow())
        return web.json_response({})

    def _report(self, agent: str, report: dict[str, Any]) -> None:
        if "tunnels" in report:
            self._table.report(agent, frozenset(map(str, report["tunnels"])), utcnow())
        for line in report.get("requests", ()):
            self._watchers.request(str(line.pop("session", "")), line)

    # Inside

    def _caller(self, request: web.Request, role: Role) -> Caller:
        caller = self._tokens.authenticate(request.headers.get("Authorization"))
        if caller.role is not role:
            raise ForbiddenError(f"{caller.name} is no {role}")
        if role is Role.AGENT:
            check_agent(agent_version(request))
        return caller

    def _owned(self, request: web.Request, caller: Caller) -> Session:
        session = self._table.get(_name(request))
        if session.owner != caller.name:
            raise ForbiddenError(f"session {session.name} is {session.owner}'s: only they can watch, change or end it")
        return session

    async def _watch(self, request: web.Request, session: Session) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        with self._watchers.subscribe(session.name) as queue:
            await response.prepare(request)
            await _line(response, _event(Change.ADDED, session))
            while (event := await queue.get()) is not None:
                await _line(response, event)
        await response.write_eof()
        return response

    async def _settle(self, session: Session) -> None:
        if session.spec.target is not None:
            await self._settler.settled(session.spec.target.name)

    def _on_change(self, change: Change, session: Session) -> None:
        self._watchers.change(session.name, _event(change, session), last=change is Change.DELETED)


def _event(change: Change, session: Session) -> dict[str, Any]:
    return {"type": change.value, "object": session_to_json(session)}


async def _line(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(json.dumps(event).encode() + b"\n")


def _public(session: Session) -> dict[str, Any]:
    document = session_to_json(session)
    document["spec"].pop("certificateRequest", None)
    document["status"].pop("certificate", None)
    return document


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _spec_patch(document: dict[str, Any]) -> dict[str, Any]:
    spec = document.get("spec")
    if set(document) != {"spec"} or not isinstance(spec, dict) or not spec:
        raise InvalidFieldError("body", sorted(document), "is not a patch of `spec`", 'send {"spec": {…}}')
    change: dict[str, Any] = {}
    for field, value in spec.items():
        if field == "localPort":
            if value is not None and not (type(value) is int and 0 < value < 65536):  # noqa: PLR2004 # a port
                raise InvalidFieldError("spec.localPort", value, "is not a port", "send 1 to 65535, or null")
            change["local_port"] = value
        elif field == "certificateRequest" and isinstance(value, str):
            change["certificate_request"] = value
        else:
            raise InvalidFieldError(f"spec.{field}", value, "can't be changed", "localPort and certificateRequest can")
    return change
