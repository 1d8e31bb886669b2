"""The session that is held, as it was last told; whoever waits for something of it is woken by each change."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from hairpin.model.session import Session
from local_proxy.ports import Listener


class Held:
    """One session after another, at most one at a time."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._changed = asyncio.Condition()
        self.watching = False
        """Whether the control plane tells its changes now."""
        self.listener: Listener | None = None
        """Where requests shall come to: the control plane is kept told of it. None: nothing listens."""

    @property
    def known(self) -> bool:
        """Whether there ever was one."""
        return self._session is not None

    @property
    def session(self) -> Session:
        """As the control plane last told it."""
        if self._session is None:
            raise RuntimeError("there is no session yet")
        return self._session

    @property
    def local_port(self) -> int | None:
        """The listener's port."""
        return self.listener.port if self.listener else None

    @property
    def in_step(self) -> bool:
        """Whether the control plane knows where requests shall come to."""
        return self.session.spec.local_port == self.local_port

    def put(self, session: Session) -> None:
        """This is how it is. Tell with `notify`."""
        self._session = session

    def without_tunnel(self, agent: str) -> None:
        """There is no tunnel to that replica now, whatever the control plane last told."""
        session = self.session
        tunnels = tuple(name for name in session.status.tunnels if name != agent)
        self._session = dataclasses.replace(session, status=dataclasses.replace(session.status, tunnels=tunnels))

    async def notify(self) -> None:
        """Wake who waits."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[Session], bool], seconds: float | None) -> bool:
        """Wait until something holds of the session; False if it does not in time."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._session is not None and holds(self._session))
        except TimeoutError:
            return False
        return True
