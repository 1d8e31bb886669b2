"""What chaos needs of a mesh, whichever it is: two laptops, connections to load it by, the applications' journal."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import psutil

from bench.chaos.laptop import Laptop
from bench.chaos.load import Load, Streams
from bench.chaos.records import Kind, Record
from hairpin.errors import HairpinError

LOOK_SECONDS = 0.01
STEADY_SECONDS = 0.7
"""The laptop is back when it has answered everything for so long."""
STEADY_ANSWERS = 20


class StruckMesh(ABC):
    """A mesh with a service called `target`; a laptop that is struck, and another one.

    Args:
        laptop: whose parts are struck.
        bystander: the other one.
        journal: where the applications write down what they execute.
        pause: seconds between two requests of a connection.
    """

    patience: ClassVar[float] = 30.0
    """Seconds that anything may take to become so."""

    def __init__(self, laptop: Laptop, bystander: Laptop, journal: Path, pause: float) -> None:
        self.laptop = laptop
        self.bystander = bystander
        self.journal = journal
        self._pause = pause

    @abstractmethod
    async def connect(self) -> Streams:
        """A new connection of a caller's to the service.

        Raises:
            OSError: there is none.
        """

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Load on the service."""
        load = Load(
            self.connect,
            service="target",
            environment=self.laptop.user,
            bystander=self.bystander.user,
            pause=self._pause,
            under_way=self.under_way,
        )
        async with load.running():
            yield load

    async def laptops_answer(self, load: Load, what: str) -> None:
        """Wait until each laptop, and it alone, has answered its GETs for some time.

        Raises:
            HairpinError: one does not.
        """
        for kind, laptop in ((Kind.GET, self.laptop), (Kind.BYSTANDER, self.bystander)):
            if not await load.until(_steady(kind, laptop.name), self.patience):
                raise HairpinError(f"{what}: {laptop.user}'s laptop does not answer\n{await self.told(laptop)}")

    async def under_way(self) -> str:
        """What there is to see of requests that are under way."""
        return "nobody knows where it is"

    async def told(self, laptop: Laptop) -> str:
        """What there is to learn of a laptop that does not answer."""
        return laptop.said()

    async def so(self, condition: Callable[[], Awaitable[bool]], what: str) -> float:
        """Wait until something is so, and return the event loop's time.

        Raises:
            HairpinError: it does not become so.
        """
        try:
            async with asyncio.timeout(self.patience):
                while not await condition():
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise HairpinError(f"never so: {what}") from None
        return asyncio.get_running_loop().time()

    async def dead(self, process: psutil.Process) -> float:
        """Wait for a process's end, and return the event loop's time."""

        async def ended() -> bool:
            try:
                return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True

        return await self.so(ended, f"process {process.pid} ends")


def _steady(kind: Kind, name: str) -> Callable[[list[Record]], bool]:
    begin = asyncio.get_running_loop().time()

    def steady(records: list[Record]) -> bool:
        now = asyncio.get_running_loop().time()
        answers = 0
        for record in reversed(records):
            if record.kind is not kind or record.sent < begin:
                continue
            if record.refused or record.who != name:
                return False
            answers += 1
            if record.sent < now - STEADY_SECONDS and answers >= STEADY_ANSWERS:
                return True
        return False

    return steady
