"""A session kept alive: claimed, tunnelled, renewed, dialled again, claimed again, and given back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from hairpin.certificates import new_key_and_request
from hairpin.errors import ConflictError, HairpinError, NotFoundError, UnavailableError
from hairpin.model.environment import RoutingKey
from hairpin.model.session import Mode, Phase, Session, SessionSpec
from local_proxy.console import Console
from local_proxy.held import Held
from local_proxy.kubernetes_sessions import refusal
from local_proxy.laptop import Laptop, certificate_end
from local_proxy.messages import egress_text, no_tunnel_text, request_text
from local_proxy.ports import Listener
from local_proxy.reach import Reach, Replicas, reachable
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

TUNNEL_SECONDS = 15.0
"""How long the first tunnel may take."""
STRAGGLER_SECONDS = 3.0
"""How long the tunnels to further replicas are waited for."""
TOLD_SECONDS = 2.0
"""How long the control plane may take to learn where the process listens, before something else is done."""
RETRY_SECONDS = (0.2, 2.0)
"""The first and the longest pause before a call is repeated to a control plane that did not answer."""
WAITING_SECONDS = 3.0
"""After which the user is told that a claim is not answered yet."""
CLAIM_SECONDS = 2.0
"""How long a claim that was broken off is waited for, to give back what it made; after that the lease does it."""
GIVE_BACK_SECONDS = 3.0
"""How long giving back may take; after that the lease does it."""
SHORTEST_SECONDS = 1.0
"""Between two renewals at least."""
WAKE_SECONDS = 5.0
"""How often the clock is looked at: sleeping machines don't count the seconds of a timer."""
AWAY_SECONDS = 0.5
"""How often we look ourselves, while the control plane can't be reached, for what it would tell us."""
REFUSED_SECONDS = 10.0
"""How long a refusal is borne: it may come from a new mesh, whose file for us is about to be written."""
ACTIVE_SECONDS = 3.0
"""How long to wait for sidecars before the user is told that requests come here."""
TUNNEL_MISSING = "TunnelMissing"
"""A condition that says what is told of each tunnel anyway."""
_LIVELY = (Phase.ACTIVE, Phase.READY)


class StoppedError(HairpinError):
    """Its owner ended the session from elsewhere."""


class ClaimRefusedError(ConflictError):
    """The control plane refuses a session that it had taken: someone else holds the requests, say."""


class _GoneError(Exception):
    """The session is no longer known; the message says why."""


class Link:
    """One claim and its tunnels. The session behind it may become another one: after a sleep, or a restart of the mesh.

    Args:
        plane: where it is claimed.
        reach: how the agent's replicas are reached.
        spec: what to claim; given a certificate request.
        directory: a private directory, for keys and Envoy's files.
        egress_port: the HTTP proxy's port.
        console: where to tell what happens.
        asks: whether to ask the agents for the requests that come here, since the control plane does not tell them.
    """

    def __init__(
        self,
        plane: ControlPlane,
        reach: Reach,
        spec: Callable[[str], SessionSpec],
        directory: Path,
        *,
        egress_port: int,
        console: Console,
        asks: bool = False,
    ) -> None:
        self._plane = plane
        self._reach = reach
        self._spec = spec
        self._directory = directory
        self._egress_port = egress_port
        self._console = console
        self._asks = asks
        self._listener: Listener | None = None
        self._listened = False
        self._store: SessionStore | None = None
        self._held = Held()
        self._laptop: Laptop | None = None
        self._problem = ""
        self._told: frozenset[str] = frozenset()
        self._given_back = ""

    @property
    def session(self) -> Session:
        """As the control plane last told it."""
        return self._held.session

    @property
    def routing_key(self) -> RoutingKey | None:
        """What marks an environment's requests, if that is known."""
        return self._plane.routing_key

    @property
    def directory(self) -> Path:
        """Where its keys lie."""
        return self._directory

    @property
    def claimed(self) -> bool:
        """Whether there ever was a session."""
        return self._held.known

    @property
    def listened(self) -> bool:
        """Whether there ever was a process to send requests to."""
        return self._listened

    async def hold(self) -> None:
        """Claim, and hold until cancelled; then give back, whatever ends it.

        Raises:
            StoppedError: its owner ended it from elsewhere.
            ClaimRefusedError: the control plane took the claim back.
            HairpinError: the first claim failed, as `SessionStore.create` raises it, or Envoy did not start.
        """
        gone, tries = "", 0
        while True:
            failure: BaseException | None = None
            try:
                async with self._claimed(tries):
                    if gone:
                        self._console.warn(f"{gone}: session {self.session.name} takes its place")
                    await self._held.notify()
                    await self._keep()
            except* _GoneError as group:
                gone = f"session {self.session.name} is gone, {_first(group)}"
            except* HairpinError as group:
                failure = _first(group)
            tries += 1
            if failure is None:
                continue
            # The first claim must succeed, and what its owner ended stays ended; else we wait for better times.
            if not gone or isinstance(failure, (StoppedError, ClaimRefusedError)):
                raise failure
            if self._problem != str(failure):
                self._problem = str(failure)
                self._console.warn(f"{gone}, and can't be claimed again: {failure}; trying on")
            await asyncio.sleep(RETRY_SECONDS[1])
            self._plane.reread()

    async def first_claim(self) -> Session:
        """Wait for the session."""
        await self._held.until(lambda _: True, None)
        return self.session

    async def tunnel_up(self) -> None:
        """Wait for a tunnel to every replica, or to one if the others take long.

        Raises:
            UnavailableError: there is none in time.
        """
        if await self._held.until(lambda session: bool(session.status.tunnels), TUNNEL_SECONDS):
            await self._held.until(lambda session: _replicas(session) <= set(session.status.tunnels), STRAGGLER_SECONDS)
            return
        raise UnavailableError(no_tunnel_text(self.session, TUNNEL_SECONDS, self._problem))

    async def serve(self, listener: Listener | None) -> None:
        """Have requests come to where the process listens; None: it does not, the cluster answers for now.

        Returns when the control plane knows, or has had its time for it.
        """
        self._listened = self._listened or listener is not None
        if listener is not None and self._laptop is not None:
            await self._laptop.serve(listener.host, listener.port)
        self._listener = listener
        await self._held.notify()
        await self._held.until(lambda session: session.spec.local_port == self._local_port, TOLD_SECONDS)
        if listener is not None and self.session.spec.mode is Mode.STEAL:
            # The control plane says Active when the target's sidecars have the rule: "takes the requests" is then true.
            await self._held.until(lambda session: session.status.phase is Phase.ACTIVE, ACTIVE_SECONDS)

    # One session

    @contextlib.asynccontextmanager
    async def _claimed(self, number: int) -> AsyncIterator[None]:
        """A session of ours and its Envoy. At the end first nothing more is steered here, then Envoy lets finish."""
        directory = self._directory / str(number)
        directory.mkdir(mode=0o700)
        key, request = new_key_and_request()
        self._held.watching = False
        try:
            async with self._plane.open() as self._store:
                session = await self._claim(self._store, request)
                self._held.put(session)
                try:
                    self._laptop = self._new_laptop(session, await self._reach.replicas(session), key, directory)
                    async with self._laptop.envoy:
                        try:
                            yield
                        finally:
                            await self._give_back(session.name)
                finally:
                    await self._give_back(session.name)
        finally:
            self._laptop = self._store = None
            shutil.rmtree(directory, ignore_errors=True)

    async def _claim(self, store: SessionStore, request: str) -> Session:
        """Claim. If cancelled meanwhile, what the control plane makes of it all the same is given back."""
        # A task that our cancellation does not reach: it is over in here nevertheless, whatever happens.
        loop = asyncio.get_running_loop()
        creating = loop.create_task(store.create(self._spec(request)))
        waiting = loop.call_later(WAITING_SECONDS, self._console.say, "waiting for the control plane to answer")
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with contextlib.suppress(HairpinError, TimeoutError):
                async with asyncio.timeout(CLAIM_SECONDS):
                    session = await creating
                await self._give_back(session.name)
            raise
        finally:
            waiting.cancel()

    def _new_laptop(self, session: Session, replicas: Replicas, key: str, directory: Path) -> Laptop:
        return Laptop(
            session,
            replicas,
            key,
            directory,
            egress_port=self._egress_port,
            app=(self._listener.host, self._listener.port) if self._listener else None,
            asks=self._asks,
            on_egress=lambda seen: self._console.request(egress_text(seen)),
            on_problem=self._on_problem,
        )

    async def _give_back(self, name: str) -> None:
        if self._given_back == name:
            return
        self._given_back = name
        with contextlib.suppress(HairpinError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self._api.delete(name)

    async def _keep(self) -> None:
        laptop = self._open_laptop
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._look_around())
            tasks.create_task(self._reconcile())
            tasks.create_task(self._renew())
            tasks.create_task(keep_tunnels(self._held, laptop, self._reach))
            if laptop.questions is not None:
                tasks.create_task(self._tell_requests(laptop.questions))

    async def _tell_requests(self, questions: Path) -> None:
        try:
            await tell_requests(self._held, questions, lambda seen: self._console.request(request_text(seen)))
        except NoRequestLinesError as error:
            self._console.say(str(error))

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(self._api.follow(self.session.name)) as events:
                async for event in events:
                    await self._on_event(event)
        except NotFoundError:
            self._plane.reread()
            raise _GoneError("the control plane does not know it any more") from None
        except StoppedError:
            raise
        except HairpinError:
            # A control plane that takes us for someone else: the mesh was made anew, and with it, sooner or later, our file.
            self._held.watching = False
            await asyncio.sleep(REFUSED_SECONDS)
            raise

    async def _look_around(self) -> None:
        """What the control plane would tell, for as long as it is away: a mesh made anew, and lost tunnels."""
        while True:
            await asyncio.sleep(AWAY_SECONDS)
            if self._held.watching:
                continue
            if await self._plane.moved():
                raise _GoneError("the mesh was made anew")
            for agent in self.session.status.tunnels:
                at = self._open_laptop.address(agent)
                if at is not None and not await reachable(at) and not self._held.watching:
                    self._without_tunnel(agent)

    def _without_tunnel(self, agent: str) -> None:
        session = self.session
        tunnels = tuple(name for name in session.status.tunnels if name != agent)
        self._held.put(dataclasses.replace(session, status=dataclasses.replace(session.status, tunnels=tunnels)))
        self._console.warn(_lost(agent))

    async def _on_event(self, event: Event) -> None:
        match event:
            case SessionChanged(session):
                await self._on_session(session)
            case RequestSeen():
                self._console.request(request_text(event))
            case SessionEnded(session):
                if session.status.phase in _LIVELY:
                    raise StoppedError(f"session {session.name} was ended from elsewhere")
                raise _GoneError("its lease ran out while there was no tunnel")
            case WatchLost(error):
                self._held.watching = False
                self._console.warn(f"{error}; trying on")

    async def _on_session(self, session: Session) -> None:
        before, after = set(self.session.status.tunnels), set(session.status.tunnels)
        self._held.put(session)
        self._held.watching = True
        for agent in sorted(before - after):
            self._console.warn(_lost(agent))
        for agent in sorted(after - before):
            self._console.say(f"the tunnel to {agent} is up")
        remarks = {c.message for c in session.status.conditions if c.type != TUNNEL_MISSING}
        for message in sorted(remarks - self._told):
            self._console.warn(message)
            self._told |= {message}
        if session.status.phase is Phase.REFUSED:
            raise ClaimRefusedError(f"session {session.name} is refused: {refusal(session)}")
        await self._held.notify()

    async def _reconcile(self) -> None:
        """Have the control plane know where the process listens."""
        while True:
            await self._held.until(lambda session: session.spec.local_port != self._local_port, None)
            port = self._local_port
            self._held.put(await self._repeated(lambda: self._api.update(self.session.name, local_port=port)))  # noqa: B023
            await self._held.notify()

    @property
    def _local_port(self) -> int | None:
        return self._listener.port if self._listener else None

    async def _renew(self) -> None:
        """Have a new certificate, for a new key, when half of the old one's time is over."""
        while True:
            now = datetime.now(UTC)
            half = now + (certificate_end(self.session.status.certificate) - now) / 2
            await asyncio.sleep(SHORTEST_SECONDS)
            while (rest := (half - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - the clock sets no event
                await asyncio.sleep(min(rest, WAKE_SECONDS))
            key, request = new_key_and_request()
            update = self._api.update
            session = await self._repeated(lambda: update(self.session.name, certificate_request=request))  # noqa: B023
            self._held.put(session)
            self._open_laptop.renew(session, key)

    # Helpers

    @property
    def _api(self) -> SessionStore:
        if self._store is None:
            raise RuntimeError("there is no session yet")
        return self._store

    @property
    def _open_laptop(self) -> Laptop:
        if self._laptop is None:
            raise RuntimeError("there is no session yet")
        return self._laptop

    def _on_problem(self, agent: str, error: str) -> None:
        self._problem = f"{agent}: {error}"

    async def _repeated(self, call: Callable[[], Awaitable[Session]]) -> Session:
        """Repeat a call until the control plane answers."""
        pause, longest = RETRY_SECONDS
        refused: float | None = None
        while True:
            try:
                return await call()
            except NotFoundError as error:
                raise _GoneError("the control plane does not know it any more") from error
            except HairpinError as error:
                # While it can't be watched, what a call is told is no better than what the watch is: that decides.
                if self._held.watching and not isinstance(error, UnavailableError):
                    refused = refused or time.monotonic()
                    if time.monotonic() - refused > REFUSED_SECONDS:
                        raise
                if self._held.watching and str(error) != self._problem:
                    self._problem = str(error)
                    self._console.warn(f"{error}; trying on")
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)


def _replicas(session: Session) -> set[str]:
    return {agent.name for agent in session.status.agents}


def _lost(agent: str) -> str:
    return f"the tunnel to {agent} is lost: the cluster answers until it is back"


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
