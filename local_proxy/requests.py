"""Lines of the requests that a session takes, asked of each replica of the agent, where the control plane has none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import aiohttp

from local_proxy.egress import AGENT_HEADER, question_cluster_name
from local_proxy.held import Held
from local_proxy.session_store import RECONNECT_SECONDS, RequestSeen, request_seen

_URL = "http://hairpin.internal/requests"
_LINE_LIMIT = 1 << 17


class NoRequestLinesError(Exception):
    """A replica has none to give."""


async def tell_requests(held: Held, questions: Path, tell: Callable[[RequestSeen], None]) -> None:
    """Tell each request that any replica hands to the laptop, until cancelled.

    Args:
        held: the session, whose replicas are asked.
        questions: the socket of the laptop's Envoy that leads to them.
        tell: called with each request.

    Raises:
        NoRequestLinesError: the agent is of a version without them.
    """
    connector = aiohttp.UnixConnector(str(questions), limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=2.0)
    running: dict[str, asyncio.Task[None]] = {}
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=_LINE_LIMIT) as http,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                names = {agent.name for agent in held.session.status.agents}
                for name in running.keys() - names:
                    running.pop(name).cancel()
                for name in names - running.keys():
                    running[name] = tasks.create_task(_ask(http, name, tell))
                await held.until(lambda session: {a.name for a in session.status.agents} != names, None)  # noqa: B023
    except* NoRequestLinesError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _ask(http: aiohttp.ClientSession, agent: str, tell: Callable[[RequestSeen], None]) -> None:
    """Ask one replica; again whenever the answer ends: the agent may be away, or not know the session yet."""
    first, longest = RECONNECT_SECONDS
    pause = first
    while True:
        try:
            async with http.get(_URL, headers={AGENT_HEADER: question_cluster_name(agent)}) as response:
                if response.status == HTTPStatus.NOT_FOUND:
                    raise NoRequestLinesError(f"{agent} tells no requests, so there are no lines of them")
                if response.status == HTTPStatus.OK:
                    pause = first
                    async for line in response.content:
                        tell(request_seen(json.loads(line)))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            pass
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)
