"""What laptops ask the agent itself, as `hairpin.internal` on the egress: their session's requests and rules, and names.

Envoy passes the question on over a Unix socket and names the session, by the laptop's certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.judge import one_line, serve_on_socket
from agent.names import Names
from hairpin.errors import UnavailableError
from hairpin.headers import REFUSED_HEADER, SESSION_HEADER
from hairpin.model.egress_json import session_rules_to_json

_MOST_LINES = 1000
"""Request lines that wait for one listener; further ones are dropped."""
_MOST_LISTENERS = 16
"""Of one session at a time."""

_Queue = asyncio.Queue[dict[str, Any] | None]


class RequestWatch:
    """Passes request lines on to those who listen."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, set[_Queue]] = defaultdict(set)

    @contextlib.contextmanager
    def listen(self, session: str) -> Iterator[_Queue]:
        """A queue of the session's request lines; None at its end."""
        queue: _Queue = asyncio.Queue()
        self._queues[session].add(queue)
        try:
            yield queue
        finally:
            self._queues[session].discard(queue)
            if not self._queues[session]:
                del self._queues[session]

    def listeners(self, session: str) -> int:
        """How many listen."""
        return len(self._queues.get(session, ()))

    def seen(self, line: dict[str, Any]) -> None:
        """A request of a session."""
        for queue in self._queues.get(str(line.get("session")), ()):
            if queue.qsize() < _MOST_LINES:
                queue.put_nowait(line)

    def keep(self, sessions: frozenset[str]) -> None:
        """These sessions are left: what others listen to ends."""
        for session in self._queues.keys() - sessions:
            self._end(session)

    def close(self) -> None:
        """The agent ends."""
        for session in self._queues:
            self._end(session)

    def _end(self, session: str) -> None:
        for queue in self._queues[session]:
            queue.put_nowait(None)


class Laptops:
    """The handlers."""

    def __init__(self, watch: RequestWatch, names: Names) -> None:
        self._watch = watch
        self._names = names
        self._policies = names.judge.policies

    async def requests(self, request: web.Request) -> web.StreamResponse:
        """Requests as they are answered, one JSON object a line, until the session ends."""
        session = _session(request)
        if self._watch.listeners(session) >= _MOST_LISTENERS:
            raise web.HTTPTooManyRequests(text=f"session {session} has {_MOST_LISTENERS} listeners already\n")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        with self._watch.listen(session) as queue:
            await response.prepare(request)
            while (line := await queue.get()) is not None:
                await response.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        await response.write_eof()
        return response

    async def policy(self, request: web.Request) -> web.Response:
        """The session's egress rules."""
        session = _session(request)
        try:
            rules = await self._policies.rules(session)
        except UnavailableError as error:
            return web.json_response({"message": str(error)}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.json_response({"session": session, **session_rules_to_json(rules)})

    async def name(self, request: web.Request) -> web.Response:
        """Where a name leads."""
        _session(request)
        status, document = await self._names.name(request.match_info["name"])
        return web.json_response(document, status=status)

    async def destination(self, request: web.Request) -> web.Response:
        """What would become of a connection to an authority; `host` is the name that was looked up for its address."""
        authority, host = request.match_info["authority"], request.query.get("host", "")
        status, document = await self._names.destination(authority, _session(request), host)
        # As a refused CONNECT has it: the laptop's Envoy reads headers.
        header = {REFUSED_HEADER: one_line(document["reason"])} if "reason" in document else {}
        return web.json_response(document, status=status, headers=header)

    async def serve(self, socket_path: Path) -> web.AppRunner:
        """Listen on a Unix socket; the caller cleans the runner up."""
        application = web.Application()
        application.router.add_get("/requests", self.requests)
        application.router.add_get("/policy", self.policy)
        application.router.add_get("/names/{name}", self.name)
        application.router.add_get("/destinations/{authority}", self.destination)
        return await serve_on_socket(application, socket_path)


def _session(request: web.Request) -> str:
    session = request.headers.get(SESSION_HEADER, "")
    if not session:
        raise web.HTTPForbidden(text="no session's certificate\n")
    return session
