"""A claimed session kept alive: its changes followed, its certificate renewed, its tunnels dialled again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from hairpin.certificates import new_key_and_request
from hairpin.errors import ConflictError, HairpinError, NotFoundError, UnavailableError
from hairpin.model.session import Phase, Session
from local_proxy.clock import sleep_and_measure
from local_proxy.console import Console
from local_proxy.held import Held
from local_proxy.kubernetes_refusals import refusal
from local_proxy.laptop import Laptop, certificate_end
from local_proxy.messages import request_text
from local_proxy.news import News
from local_proxy.reach import Reach, reachable
from local_proxy.requests import NoRequestLinesError, tell_requests
from local_proxy.session_store import (
    ControlPlane,
    Event,
    RequestSeen,
    SessionChanged,
    SessionEnded,
    SessionStore,
    WatchLost,
)
from local_proxy.tunnels import keep_tunnels

RETRY_SECONDS = (0.2, 2.0)
"""The first and the longest pause before a call is repeated to a control plane that did not answer."""
SHORTEST_SECONDS = 1.0
"""Between two renewals at least."""
WAKE_SECONDS = 5.0
"""How often the clock is looked at: sleeping machines don't count the seconds of a timer."""
AWAY_SECONDS = 0.5
"""How often we look ourselves, while the control plane can't be reached, for what it would tell us."""
SETTLED_SECONDS = 10.0
"""How long a control plane that is back may take to find out how it is by now: its own watches are opened again, too."""
STILL_SECONDS = 5.0
"""A timer that comes so late tells of a machine that slept."""
REFUSED_SECONDS = 10.0
"""How long a refusal is borne: it may come from a new mesh, whose file for us is about to be written."""
_LIVELY = (Phase.ACTIVE, Phase.READY)


class StoppedError(HairpinError):
    """Its owner ended the session from elsewhere."""


class ClaimRefusedError(ConflictError):
    """The control plane refuses a session that it had taken: someone else holds the requests, say."""


class GoneError(Exception):
    """The session is no longer known; the message says why."""


class Keeper:
    """Keeps one session, from its claim until it is gone.

    Args:
        plane: where it was claimed.
        store: its sessions.
        held: the session; it is kept as the control plane tells it.
        laptop: its Envoy, running.
        reach: how the agent's replicas are reached.
        asks: whether the agents are asked for the requests that come here, since the control plane does not tell them.
        console: where requests are told.
        news: where everything else is.
    """

    def __init__(
        self,
        plane: ControlPlane,
        store: SessionStore,
        held: Held,
        laptop: Laptop,
        reach: Reach,
        *,
        asks: bool,
        console: Console,
        news: News,
    ) -> None:
        self._asks = asks
        self._plane = plane
        self._store = store
        self._held = held
        self._laptop = laptop
        self._reach = reach
        self._console = console
        self._news = news

    async def keep(self) -> None:
        """Keep it until cancelled.

        Raises:
            ExceptionGroup: of `GoneError`: there is no such session any more; `StoppedError`; `ClaimRefusedError`; or what
                the control plane refuses for longer than may pass.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._look_around())
            tasks.create_task(self._reconcile())
            tasks.create_task(self._renew())
            tasks.create_task(keep_tunnels(self._held, self._laptop, self._reach))
            if self._asks:
                tasks.create_task(self._tell_requests(self._laptop.questions))

    async def _tell_requests(self, questions: Path) -> None:
        try:
            await tell_requests(self._held, questions, lambda seen: self._console.request(request_text(seen)))
        except NoRequestLinesError as error:
            self._console.say(str(error))

    # What the control plane tells

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(self._store.follow(self._held.session.name)) as events:
                async for event in events:
                    await self._on_event(event)
        except NotFoundError:
            self._plane.reread()
            raise GoneError("the control plane does not know it any more") from None
        except StoppedError:
            raise
        except HairpinError:
            # A control plane that takes us for someone else: the mesh was made anew, and with it, sooner or later, our file.
            self._held.watching = False
            await asyncio.sleep(REFUSED_SECONDS)
            raise

    async def _on_event(self, event: Event) -> None:
        match event:
            case SessionChanged(session):
                await self._on_session(session)
            case RequestSeen():
                self._console.request(request_text(event))
            case SessionEnded(session):
                if session.status.phase in _LIVELY:
                    raise StoppedError(f"session {session.name} was ended from elsewhere")
                raise GoneError("its lease ran out while there was no tunnel")
            case WatchLost(error):
                self._held.watching = False
                self._news.watch_lost(error)

    async def _on_session(self, session: Session) -> None:
        before = self._held.session
        self._held.put(session)
        self._held.watching = True
        self._news.changed(before, session)
        if session.status.phase is Phase.REFUSED:
            raise ClaimRefusedError(f"session {session.name} is refused: {refusal(session)}")
        await self._held.notify()

    async def _look_around(self) -> None:
        """What the control plane would tell, for as long as it is away: a mesh made anew, and lost tunnels. And a sleep."""
        away = time.monotonic()
        while True:
            stood_still = await sleep_and_measure(AWAY_SECONDS)
            if stood_still > STILL_SECONDS:
                self._news.stood_still(stood_still)
            if self._held.watching:
                if time.monotonic() - away > SETTLED_SECONDS:
                    self._news.settled(self._held.session)
                continue
            away = time.monotonic()
            if await self._plane.moved():
                raise GoneError("the mesh was made anew")
            for agent in self._held.session.status.tunnels:
                at = self._laptop.address(agent)
                if at is not None and not await reachable(at) and not self._held.watching:
                    self._held.without_tunnel(agent)
                    self._news.found_lost(agent)

    # What the control plane is told

    async def _reconcile(self) -> None:
        """Have the control plane know where the process listens."""
        held = self._held
        while True:
            await held.until(lambda _: not held.in_step, None)
            port = held.local_port
            held.put(await self._repeated(lambda: self._store.update(held.session.name, local_port=port)))  # noqa: B023
            await held.notify()

    async def _renew(self) -> None:
        """Have a new certificate, for a new key, when half of the old one's time is over."""
        held, update = self._held, self._store.update
        while True:
            now = datetime.now(UTC)
            half = now + (certificate_end(held.session.status.certificate) - now) / 2
            await asyncio.sleep(SHORTEST_SECONDS)
            while (rest := (half - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - the clock sets no event
                await asyncio.sleep(min(rest, WAKE_SECONDS))
            key, request = new_key_and_request()
            session = await self._repeated(lambda: update(held.session.name, certificate_request=request))  # noqa: B023
            held.put(session)
            self._laptop.renew(session, key)

    async def _repeated(self, call: Callable[[], Awaitable[Session]]) -> Session:
        """Repeat a call until the control plane answers."""
        pause, longest = RETRY_SECONDS
        refused: float | None = None
        while True:
            try:
                return await call()
            except NotFoundError as error:
                raise GoneError("the control plane does not know it any more") from error
            except HairpinError as error:
                # While it can't be watched, what a call is told is no better than what the watch is: that decides.
                if self._held.watching and not isinstance(error, UnavailableError):
                    refused = refused or time.monotonic()
                    if time.monotonic() - refused > REFUSED_SECONDS:
                        raise
                if self._held.watching:
                    self._news.failed(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
