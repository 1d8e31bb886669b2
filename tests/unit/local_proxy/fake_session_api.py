"""The session API in a few lines, for tests of its client: sessions in memory, tunnels as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from aiohttp import web

from hairpin.api import Developer, status_of
from hairpin.certificates import CertificateAuthority, new_key_and_request
from hairpin.errors import ConflictError, HairpinError, NotFoundError
from hairpin.model.session import Mode, Phase, Session, SessionSpec, SessionStatus
from hairpin.model.session_json import session_from_json, session_to_json

AGENT_ID = "spiffe://hairpin.local/ns/default/sa/hairpin-agent"


class FakeSessionApi:
    """Everything the laptop sees of a control plane, over HTTPS on loopback.

    `tunnels` holds, by replica, the sessions whose tunnels are up there; call `refresh` after a change.
    """

    def __init__(self, directory, authority=None):
        self.directory = directory
        self.authority = authority or CertificateAuthority.create("hairpin")
        self.agents = ()
        self.tunnels = {}
        self.sessions = {}
        self.lifetime = timedelta(minutes=10)
        self.calls = []
        self.date = None
        """What the Date header says, if not the time."""
        self.count = 0
        self.port = 0
        self.token = "alices"
        self.create_seconds = 0.0
        """How long the answer to a claim takes, after the session was made."""
        self._queues = {}
        self._runner = None

    @property
    def developer(self):
        return Developer(
            server=f"https://127.0.0.1:{self.port}",
            certificate_authority=self.authority.certificate,
            token=self.token,
            user="alice",
        )

    async def start(self):
        app = web.Application()
        app.on_response_prepare.append(self._dated)
        app.add_routes(
            [
                web.get("/v1/version", self._version),
                web.get("/v1/sessions", self._list),
                web.post("/v1/sessions", self._create),
                web.get("/v1/sessions/{name}", self._get),
                web.patch("/v1/sessions/{name}", self._patch),
                web.delete("/v1/sessions/{name}", self._delete),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls(), reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self):
        for queues in self._queues.values():
            for queue in queues:
                queue.put_nowait(None)
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    def forget(self):
        """What a restart does to sessions in memory."""
        self.sessions.clear()

    def refresh(self):
        for session in list(self.sessions.values()):
            up = tuple(sorted(agent for agent, names in self.tunnels.items() if session.name in names))
            self._update(session, tunnels=up)

    def expire(self, name):
        """The lease has run out."""
        self._tell("DELETED", self.sessions.pop(name))

    def request(self, name, **line):
        for queue in self._queues.get(name, ()):
            queue.put_nowait({"type": "REQUEST", "request": line})

    def _update(self, session, **status):
        status = dataclasses.replace(session.status, **status)
        spec = session.spec
        phase = Phase.READY if status.tunnels else Phase.LOST
        if status.tunnels and spec.mode is not Mode.EGRESS and spec.local_port:
            phase = Phase.ACTIVE
        session = dataclasses.replace(session, status=dataclasses.replace(status, phase=phase))
        if self.sessions.get(session.name) != session:
            self.sessions[session.name] = session
            self._tell("MODIFIED", session)

    def _tell(self, kind, session):
        for queue in self._queues.get(session.name, ()):
            queue.put_nowait({"type": kind, "object": session_to_json(session)})
            if kind == "DELETED":
                queue.put_nowait(None)

    def _tls(self):
        key, request = new_key_and_request()
        certificate = self.authority.sign(request, dns=("localhost",), ips=("127.0.0.1",), lifetime=timedelta(hours=1))
        file = self.directory / "server.pem"
        file.write_text(key + certificate.chain)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    async def _dated(self, request, response):
        if self.date:
            response.headers["Date"] = self.date

    def _called(self, request, name=""):
        self.calls.append(f"{request.method} {name}".strip())
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise web.HTTPUnauthorized

    async def _version(self, request):
        assert "Authorization" not in request.headers or request.headers["Authorization"] == f"Bearer {self.token}"
        return web.json_response({"version": "0.1.0", "time": datetime.now(UTC).isoformat()})

    async def _list(self, request):
        self._called(request)
        return web.json_response({"items": [session_to_json(session) for session in self.sessions.values()]})

    async def _create(self, request):
        self._called(request)
        spec = session_from_json(await request.json()).spec
        if spec.target and spec.target.name not in ("checkout", "inventory"):
            return self._refuse(NotFoundError(f"no service {spec.target.name!r}; did you mean checkout?"))
        for other in self.sessions.values():
            if (other.spec.target, other.spec.environment) == (spec.target, spec.environment) and spec.target:
                return self._refuse(ConflictError(f"{other.owner} holds these requests with session {other.name}"))
        self.count += 1
        session = dataclasses.replace(self._blank(), name=f"alice-{self.count}", spec=spec)
        session = self._certified(session)
        self.sessions[session.name] = session
        await asyncio.sleep(self.create_seconds)
        return web.json_response(session_to_json(session), status=201)

    def _blank(self):
        status = SessionStatus(
            agents=self.agents, agent_identity=AGENT_ID, resolved_target="default/checkout:80",
            certificate_authority=self.authority.certificate,
        )  # fmt: skip
        return Session(
            name="x", namespace="default", owner="alice", created=datetime.now(UTC), spec=SessionSpec(), status=status
        )

    def _certified(self, session):
        chain = self.authority.sign(session.spec.certificate_request, dns=(session.name,), lifetime=self.lifetime).chain
        return dataclasses.replace(session, status=dataclasses.replace(session.status, certificate=chain))

    async def _get(self, request):
        name = request.match_info["name"]
        self._called(request, name + ("?watch" if request.query.get("watch") else ""))
        if name not in self.sessions:
            return self._refuse(NotFoundError(f"no session {name!r}"))
        if not request.query.get("watch"):
            return web.json_response(session_to_json(self.sessions[name]))
        response = web.StreamResponse()
        queue = asyncio.Queue()
        self._queues.setdefault(name, set()).add(queue)
        try:
            await response.prepare(request)
            event = {"type": "ADDED", "object": session_to_json(self.sessions[name])}
            with contextlib.suppress(ConnectionResetError):  # the client has gone
                while event is not None:
                    await response.write(json.dumps(event).encode() + b"\n")
                    event = await queue.get()
        finally:
            self._queues[name].discard(queue)
        await response.write_eof()
        return response

    async def _patch(self, request):
        name = request.match_info["name"]
        document = await request.json()
        self._called(request, f"{name} {','.join(document['spec'])}")
        if name not in self.sessions:
            return self._refuse(NotFoundError(f"no session {name!r}"))
        session = self.sessions[name]
        spec = session.spec
        if "localPort" in document["spec"]:
            spec = dataclasses.replace(spec, local_port=document["spec"]["localPort"])
        session = dataclasses.replace(session, spec=spec)
        if "certificateRequest" in document["spec"]:
            spec = dataclasses.replace(spec, certificate_request=document["spec"]["certificateRequest"])
            session = self._certified(dataclasses.replace(session, spec=spec))
        self._update(session)
        return web.json_response(session_to_json(self.sessions[name]))

    async def _delete(self, request):
        name = request.match_info["name"]
        self._called(request, name)
        if name not in self.sessions:
            return self._refuse(NotFoundError(f"no session {name!r}"))
        session = self.sessions.pop(name)
        self._tell("DELETED", session)
        return web.json_response(session_to_json(session))

    def _refuse(self, error: HairpinError):
        code, body = status_of(error)
        return web.json_response(body, status=code)


@asynccontextmanager
async def fake_session_api(directory, authority=None):
    api = FakeSessionApi(directory, authority)
    await api.start()
    try:
        yield api
    finally:
        await api.stop()
