"""What the supervisor's thread hears of the command's listeners, for the event loop."""

from __future__ import annotations

import asyncio

from local_proxy.intercept.listening import Moves


class Heard:
    """The command's ports: where they were moved to, and when one was opened. Made in the event loop."""

    def __init__(self) -> None:
        self.moves = Moves()
        self._loop = asyncio.get_running_loop()
        self._opened = asyncio.Event()

    def opened(self) -> None:
        """A socket has begun to listen; from any thread."""
        self._loop.call_soon_threadsafe(self._opened.set)

    def believed(self, port: int) -> int:
        """What the command takes a port of its own for."""
        return self.moves.believed(port)

    async def wait(self, seconds: float) -> bool:
        """Wait until a socket begins to listen, or some time has passed; whether one has, since the last time."""
        try:
            async with asyncio.timeout(seconds):
                await self._opened.wait()
        except TimeoutError:
            return False
        self._opened.clear()
        return True
