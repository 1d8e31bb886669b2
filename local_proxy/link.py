"""A session kept alive: claimed, tunnelled, renewed, dialled again, claimed again, and given back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from hairpin.api import Developer
from hairpin.certificates import new_key_and_request
from hairpin.errors import HairpinError, NotFoundError, UnavailableError
from hairpin.model.session import AgentAddress, Mode, Phase, Session, SessionSpec
from local_proxy.console import Console
from local_proxy.laptop import Laptop, certificate_end, reachable
from local_proxy.messages import egress_text, request_text
from local_proxy.ports import Listener
from local_proxy.session_client import Event, RequestSeen, SessionChanged, SessionClient, SessionEnded, WatchLost

TUNNEL_SECONDS = 15.0
"""How long the first tunnel may take."""
STRAGGLER_SECONDS = 3.0
"""How long the tunnels to further replicas are waited for."""
TOLD_SECONDS = 2.0
"""How long the control plane may take to learn where the process listens, before something else is done."""
LOST_SECONDS = 0.3
"""How long a tunnel must be missing before it is dialled again: Envoy may just be at it."""
REACHABLE_INTERVAL = 0.05
"""Seconds between two looks whether a replica without a tunnel is there."""
REDIAL_SECONDS = (1.0, 8.0)
"""How long a tunnel that was dialled again has to come up; each time twice as long, up to the second value."""
RETRY_SECONDS = (0.2, 2.0)
"""The first and the longest pause before a call is repeated to a control plane that did not answer."""
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
_LIVELY = (Phase.ACTIVE, Phase.READY)


class StoppedError(HairpinError):
    """Its owner ended the session from elsewhere."""


class _GoneError(Exception):
    """The session is no longer known; the message says why."""


class Link:
    """One claim and its tunnels. The session behind it may become another one: after a sleep, or a restart of the mesh.

    Args:
        read_developer: reads the developer's file; again whenever the control plane is not what it was.
        spec: what to claim; given a certificate request.
        directory: a private directory, for keys and Envoy's files.
        egress_port: the HTTP proxy's port.
        console: where to tell what happens.
    """

    def __init__(
        self,
        read_developer: Callable[[], Developer],
        spec: Callable[[str], SessionSpec],
        directory: Path,
        *,
        egress_port: int,
        console: Console,
    ) -> None:
        self._read_developer = read_developer
        self._developer = read_developer()
        self._spec = spec
        self._directory = directory
        self._egress_port = egress_port
        self._console = console
        self._listener: Listener | None = None
        self._listened = False
        self._client: SessionClient | None = None
        self._session: Session | None = None
        self._laptop: Laptop | None = None
        self._changed = asyncio.Condition()
        self._watching = False
        self._problem = ""
        self._told: frozenset[str] = frozenset()
        self._given_back = ""

    @property
    def session(self) -> Session:
        """As the control plane last told it."""
        if self._session is None:
            raise RuntimeError("there is no session yet")
        return self._session

    @property
    def directory(self) -> Path:
        """Where its keys lie."""
        return self._directory

    @property
    def claimed(self) -> bool:
        """Whether there ever was a session."""
        return self._session is not None

    @property
    def listened(self) -> bool:
        """Whether there ever was a process to send requests to."""
        return self._listened

    @property
    def developer(self) -> Developer:
        """How the control plane is reached."""
        return self._developer

    async def hold(self) -> None:
        """Claim, and hold until cancelled; then give back, whatever ends it.

        Raises:
            StoppedError: its owner ended it from elsewhere.
            HairpinError: the first claim failed, as `SessionClient.create` raises it, or Envoy did not start.
        """
        gone, tries = "", 0
        while True:
            failure: BaseException | None = None
            try:
                async with self._claimed(tries):
                    if gone:
                        self._console.warn(f"{gone}: session {self.session.name} takes its place")
                    await self._notify()
                    await self._keep()
            except* _GoneError as group:
                gone = f"session {self.session.name} is gone, {_first(group)}"
            except* HairpinError as group:
                failure = _first(group)
            tries += 1
            if failure is None:
                continue
            # The first claim must succeed, and what its owner ended stays ended; else we wait for better times.
            if not gone or isinstance(failure, StoppedError):
                raise failure
            if self._problem != str(failure):
                self._problem = str(failure)
                self._console.warn(f"{gone}, and can't be claimed again: {failure}; trying on")
            await asyncio.sleep(RETRY_SECONDS[1])
            self._developer_changed()

    async def first_claim(self) -> Session:
        """Wait for the session."""
        await self._until(lambda _: True, None)
        return self.session

    async def tunnel_up(self) -> None:
        """Wait for a tunnel to every replica, or to one if the others take long.

        Raises:
            UnavailableError: there is none in time.
        """
        if await self._until(lambda session: bool(session.status.tunnels), TUNNEL_SECONDS):
            await self._until(lambda session: _replicas(session) <= set(session.status.tunnels), STRAGGLER_SECONDS)
            return
        where = (
            " or ".join(f"{a.name} at {a.host}:{a.tunnel_port}" for a in self.session.status.agents) or "any replica"
        )
        why = f" ({self._problem})" if self._problem else ""
        raise UnavailableError(
            f"no tunnel to the agent came up within {TUNNEL_SECONDS:.0f} s, to {where}{why}: is the agent up? "
            "`hairpin mesh status` tells"
        )

    async def serve(self, listener: Listener | None) -> None:
        """Have requests come to where the process listens; None: it does not, the cluster answers for now.

        Returns when the control plane knows, or has had its time for it.
        """
        self._listened = self._listened or listener is not None
        if listener is not None and self._laptop is not None:
            await self._laptop.serve(listener.host, listener.port)
        self._listener = listener
        await self._notify()
        await self._until(lambda session: session.spec.local_port == self._local_port, TOLD_SECONDS)
        if listener is not None and self.session.spec.mode is Mode.STEAL:
            # The control plane says Active when the target's sidecars have the rule: "takes the requests" is then true.
            await self._until(lambda session: session.status.phase is Phase.ACTIVE, ACTIVE_SECONDS)

    # One session

    @contextlib.asynccontextmanager
    async def _claimed(self, number: int) -> AsyncIterator[None]:
        """A session of ours and its Envoy. At the end first nothing more is steered here, then Envoy lets finish."""
        directory = self._directory / str(number)
        directory.mkdir(mode=0o700)
        key, request = new_key_and_request()
        self._watching = False
        try:
            async with SessionClient(self._developer) as self._client:
                self._session = session = await self._claim(self._client, request)
                try:
                    self._laptop = self._new_laptop(session, key, directory)
                    async with self._laptop.envoy:
                        try:
                            yield
                        finally:
                            await self._give_back(session.name)
                finally:
                    await self._give_back(session.name)
        finally:
            self._laptop = self._client = None
            shutil.rmtree(directory, ignore_errors=True)

    async def _claim(self, client: SessionClient, request: str) -> Session:
        """Claim. If cancelled meanwhile, what the control plane makes of it all the same is given back."""
        # A task that our cancellation does not reach: it is over in here nevertheless, whatever happens.
        creating = asyncio.get_running_loop().create_task(client.create(self._spec(request)))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with contextlib.suppress(HairpinError, TimeoutError):
                async with asyncio.timeout(CLAIM_SECONDS):
                    session = await creating
                await self._give_back(session.name)
            raise

    def _new_laptop(self, session: Session, key: str, directory: Path) -> Laptop:
        return Laptop(
            session,
            key,
            directory,
            egress_port=self._egress_port,
            app=(self._listener.host, self._listener.port) if self._listener else None,
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
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._look_around())
            tasks.create_task(self._reconcile())
            tasks.create_task(self._renew())
            for agent in self.session.status.agents:
                tasks.create_task(self._redial(agent))

    async def _follow(self) -> None:
        try:
            async with contextlib.aclosing(self._api.follow(self.session.name)) as events:
                async for event in events:
                    await self._on_event(event)
        except NotFoundError:
            self._developer_changed()
            raise _GoneError("the control plane does not know it any more") from None
        except StoppedError:
            raise
        except HairpinError:
            # A control plane that takes us for someone else: the mesh was made anew, and with it, sooner or later, our file.
            self._watching = False
            await asyncio.sleep(REFUSED_SECONDS)
            raise

    async def _look_around(self) -> None:
        """What the control plane would tell, for as long as it is away: a mesh made anew, and lost tunnels."""
        while True:
            await asyncio.sleep(AWAY_SECONDS)
            if self._watching:
                continue
            if await self._another_mesh():
                raise _GoneError("the mesh was made anew")
            for agent in self.session.status.agents:
                if agent.name in self.session.status.tunnels and not await reachable(agent) and not self._watching:
                    self._without_tunnel(agent.name)

    def _without_tunnel(self, agent: str) -> None:
        session = self.session
        tunnels = tuple(name for name in session.status.tunnels if name != agent)
        self._session = dataclasses.replace(session, status=dataclasses.replace(session.status, tunnels=tunnels))
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
                self._watching = False
                self._console.warn(f"{error}; trying on")

    async def _on_session(self, session: Session) -> None:
        before, after = set(self.session.status.tunnels), set(session.status.tunnels)
        self._session, self._watching = session, True
        for agent in sorted(before - after):
            self._console.warn(_lost(agent))
        for agent in sorted(after - before):
            self._console.say(f"the tunnel to {agent} is up")
        for message in sorted({condition.message for condition in session.status.conditions} - self._told):
            self._console.warn(message)
            self._told |= {message}
        await self._notify()

    async def _reconcile(self) -> None:
        """Have the control plane know where the process listens."""
        while True:
            await self._until(lambda session: session.spec.local_port != self._local_port, None)
            port = self._local_port
            self._session = await self._repeated(lambda: self._api.update(self.session.name, local_port=port))  # noqa: B023
            await self._notify()

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
            self._session = session
            if self._laptop is not None:
                self._laptop.renew(session, key)

    async def _redial(self, agent: AgentAddress) -> None:
        """Make a tunnel anew that was lost, as soon as its replica is there. Envoy alone would take up to ten seconds."""

        def is_up(session: Session) -> bool:
            return agent.name in session.status.tunnels

        first, longest = REDIAL_SECONDS
        patience = first
        await self._until(is_up, patience)
        while True:
            await self._until(lambda session: self._watching and not is_up(session), None)
            if await self._until(is_up, LOST_SECONDS):
                patience = first
                continue
            while not await reachable(agent) or (self._laptop is not None and self._laptop.dialling()):
                if await self._until(is_up, REACHABLE_INTERVAL):
                    break
            if self._laptop is not None and not is_up(self.session):
                self._laptop.redial(agent)
            patience = first if await self._until(is_up, patience) else min(2 * patience, longest)

    # Helpers

    @property
    def _api(self) -> SessionClient:
        if self._client is None:
            raise RuntimeError("there is no session yet")
        return self._client

    def _on_problem(self, agent: str, error: str) -> None:
        self._problem = f"{agent}: {error}"

    def _developer_changed(self) -> bool:
        """Read the developer's file again."""
        try:
            developer = self._read_developer()
        except HairpinError:  # being written, or the mesh is down
            return False
        changed = developer != self._developer
        self._developer = developer
        return changed

    async def _another_mesh(self) -> bool:
        """Whether the developer's file names another control plane, and that one is up."""
        before = self._developer
        if not self._developer_changed():
            return False
        try:
            async with SessionClient(self._developer) as client:
                await client.version()
        except HairpinError:  # the file comes first
            self._developer = before
            return False
        return True

    async def _repeated(self, call: Callable[[], Awaitable[Session]]) -> Session:
        """Repeat a call until the control plane answers."""
        pause, longest = RETRY_SECONDS
        while True:
            try:
                return await call()
            except NotFoundError as error:
                raise _GoneError("the control plane does not know it any more") from error
            except HairpinError as error:
                # While it can't be watched, what a call is told is no better than what the watch is: that decides.
                if self._watching and not isinstance(error, UnavailableError):
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, holds: Callable[[Session], bool], seconds: float | None) -> bool:
        """Wait until something holds of the session; False if it does not in time."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._session is not None and holds(self._session))
        except TimeoutError:
            return False
        return True


def _replicas(session: Session) -> set[str]:
    return {agent.name for agent in session.status.agents}


def _lost(agent: str) -> str:
    return f"the tunnel to {agent} is lost: the cluster answers until it is back"


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
