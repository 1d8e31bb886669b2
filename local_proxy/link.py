"""A session for as long as the command runs: claimed, kept, claimed again when it is gone, and given back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from hairpin.certificates import new_key_and_request
from hairpin.errors import HairpinError, UnavailableError
from hairpin.model.session import Mode, Phase, Session, SessionSpec
from local_proxy.console import Console
from local_proxy.held import Held
from local_proxy.inject import injected
from local_proxy.keeper import ClaimRefusedError, GoneError, Keeper, StoppedError
from local_proxy.laptop import ConnectionSeen, Laptop
from local_proxy.messages import connection_text, egress_text, no_tunnel_text
from local_proxy.news import News
from local_proxy.ports import Listener
from local_proxy.reach import Reach, Replicas
from local_proxy.session_store import ControlPlane, SessionStore

TUNNEL_SECONDS = 15.0
"""How long the first tunnel may take."""
STRAGGLER_SECONDS = 3.0
"""How long the tunnels to further replicas are waited for."""
TOLD_SECONDS = 2.0
"""How long the control plane may take to learn where the process listens, before something else is done."""
AGAIN_SECONDS = 2.0
"""The pause before a session that is gone is claimed again, after a claim that failed."""
WAITING_SECONDS = 3.0
"""After which the user is told that a claim is not answered yet."""
CLAIM_SECONDS = 2.0
"""How long a claim that was broken off is waited for, to give back what it made; after that the lease does it."""
GIVE_BACK_SECONDS = 3.0
"""How long giving back may take; after that the lease does it."""
ACTIVE_SECONDS = 3.0
"""How long to wait for sidecars before the user is told that requests come here."""


class Link:
    """One claim and its tunnels. The session behind it may become another one: after a sleep, or a restart of the mesh.

    Args:
        plane: where it is claimed.
        reach: how the agent's replicas are reached.
        spec: what to claim; given a certificate request.
        directory: a private directory, for keys and Envoy's files.
        egress_port: the HTTP proxy's port.
        gateway_port: the gateway's port; None: there is none.
        exact: whether connections through the gateway are answered one by one, see `answers`.
        inject_env: whether the environment's header is added to the command's requests.
        console: where to tell what happens.
        news: what becomes of the session, told there.
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
        gateway_port: int | None = None,
        exact: bool = False,
        inject_env: bool = False,
        console: Console,
        news: News,
        asks: bool = False,
    ) -> None:
        self._plane = plane
        self._reach = reach
        self._spec = spec
        self._directory = directory
        self._egress_port = egress_port
        self._gateway_port = gateway_port
        self._exact = exact
        self._inject_env = inject_env
        self._console = console
        self._asks = asks
        self._news = news
        self._listened = False
        self._held = Held()
        self._laptop: Laptop | None = None
        self._tunnel_problem = ""
        self._given_back = ""

    @property
    def session(self) -> Session:
        """As the control plane last told it."""
        return self._held.session

    @property
    def plane(self) -> ControlPlane:
        """Where it is claimed."""
        return self._plane

    @property
    def laptop(self) -> Laptop | None:
        """Its Envoy, while there is a session."""
        return self._laptop

    @property
    def answers(self) -> Path | None:
        """The Unix socket that the laptop's Envoy says to what became of connections; None if it does not."""
        return self._directory / "answers.sock" if self._exact else None

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
                async with self._claimed(tries) as keeper:
                    if gone:
                        self._news.replaced(gone, self.session.name)
                    await self._held.notify()
                    await keeper.keep()
            except* GoneError as group:
                gone = f"session {self.session.name} is gone, {_first(group)}"
            except* HairpinError as group:
                failure = _first(group)
            tries += 1
            if failure is None:
                continue
            # The first claim must succeed, and what its owner ended stays ended; else we wait for better times.
            if not gone or isinstance(failure, (StoppedError, ClaimRefusedError)):
                raise failure
            self._news.not_replaced(gone, failure)
            await asyncio.sleep(AGAIN_SECONDS)
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
        raise UnavailableError(no_tunnel_text(self.session, TUNNEL_SECONDS, self._tunnel_problem))

    async def serve(self, listener: Listener | None) -> None:
        """Have requests come to where the process listens; None: it does not, the cluster answers for now.

        Returns when the control plane knows, or has had its time for it.
        """
        self._listened = self._listened or listener is not None
        if listener is not None and self._laptop is not None:
            await self._laptop.serve(listener.host, listener.port)
        self._held.listener = listener
        await self._held.notify()
        await self._held.until(lambda _: self._held.in_step, TOLD_SECONDS)
        if listener is not None and self.session.spec.mode is not Mode.EGRESS:
            # The control plane says Active when the target's sidecars have the rule: "takes the requests" is then true.
            await self._held.until(lambda session: session.status.phase is Phase.ACTIVE, ACTIVE_SECONDS)

    # One session

    @contextlib.asynccontextmanager
    async def _claimed(self, number: int) -> AsyncIterator[Keeper]:
        """A session of ours with its Envoy, to be kept. At the end first nothing more is steered here, then Envoy lets finish."""
        directory = self._directory / str(number)
        directory.mkdir(mode=0o700)
        key, request = new_key_and_request()
        self._held.watching = False
        try:
            async with self._plane.open() as store:
                session = await self._claim(store, request)
                self._held.put(session)
                try:
                    laptop = self._new_laptop(session, await self._reach.replicas(session), key, directory)
                    self._laptop = laptop
                    async with laptop.envoy:
                        try:
                            yield self._new_keeper(store, laptop)
                        finally:
                            await self._give_back(store, session.name)
                finally:
                    await self._give_back(store, session.name)
        finally:
            self._laptop = None
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
                await self._give_back(store, session.name)
            raise
        finally:
            waiting.cancel()

    def _new_laptop(self, session: Session, replicas: Replicas, key: str, directory: Path) -> Laptop:
        listener = self._held.listener
        return Laptop(
            session,
            replicas,
            key,
            directory,
            egress_port=self._egress_port,
            gateway_port=self._gateway_port,
            answers=self.answers,
            inject=injected(session, self._plane.routing_key) if self._inject_env else None,
            app=(listener.host, listener.port) if listener else None,
            on_egress=lambda seen: self._console.call(egress_text(seen)),
            on_connection=self._on_connection,
            on_problem=self._on_problem,
        )

    def _on_connection(self, seen: ConnectionSeen) -> None:
        if not (self._exact and seen.refused):  # else the connect itself was answered so, and that was said
            self._console.call(connection_text(seen))

    def _new_keeper(self, store: SessionStore, laptop: Laptop) -> Keeper:
        return Keeper(
            self._plane, store, self._held, laptop, self._reach, asks=self._asks, console=self._console, news=self._news
        )

    def _on_problem(self, agent: str, error: str) -> None:
        self._tunnel_problem = f"{agent}: {error}"

    async def _give_back(self, store: SessionStore, name: str) -> None:
        if self._given_back == name:
            return
        self._given_back = name
        with contextlib.suppress(HairpinError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await store.delete(name)


def _replicas(session: Session) -> set[str]:
    return {agent.name for agent in session.status.agents}


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
