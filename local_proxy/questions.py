"""Questions to the agents themselves: where a name leads in the cluster, and what would become of a connection.

Every replica gives the same answers. The one that answered last is asked first; if it fails, or is silent for a while, the
next one is asked beside it, and the first answer counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from hairpin.errors import UnavailableError
from hairpin.model.egress import Address
from local_proxy.egress import AGENT_HEADER, question_cluster_name

ANSWER_SECONDS = 4.0
"""How long an answer may take in all: programs ask the next name server after five seconds."""
SILENT_SECONDS = 0.5
"""After what silence the next replica is asked too."""
_AGENT = "http://hairpin.internal"
_MOST_CONNECTIONS = 256
_TIMEOUT = aiohttp.ClientTimeout(total=ANSWER_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameAnswer:
    """Where a name leads, as the cluster says."""

    addresses: tuple[Address, ...] = ()
    """In the order of preference. None: the name has none, or is `virtual`, or does not exist."""
    name: str = ""
    """The full name: completed by a search domain, or the end of an alias."""
    virtual: bool = False
    """It has no address of its own, and is connected to by name."""
    exists: bool = True
    reason: str = ""
    """Why it does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What would become of a connection."""

    allowed: bool
    address: str = ""
    """Where it would lead; empty for a `virtual` name."""
    virtual: bool = False
    reason: str = ""
    """Why it would be refused."""


class Questions:
    """Asks; `opened` makes one.

    Args: as of `opened`.
    """

    def __init__(self, socket: Callable[[], Path | None], replicas: Callable[[], Sequence[str]]) -> None:
        self._socket = socket
        self._replicas = replicas
        self._last = ""
        self._pool: tuple[Path, aiohttp.ClientSession] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, socket: Callable[[], Path | None], replicas: Callable[[], Sequence[str]]
    ) -> AsyncIterator[Questions]:
        """Questions that share a pool of connections.

        Args:
            socket: that of the laptop's Envoy (`Laptop.questions`), another one after each claim; None: there is none now.
            replicas: the names of the agent's replicas, as they are now.
        """
        questions = cls(socket, replicas)
        try:
            yield questions
        finally:
            await questions.close()

    async def name(self, host: str) -> NameAnswer:
        """Where a name leads in the cluster.

        Raises:
            UnavailableError: that can't be said: no replica answers, or the cluster's name servers don't.
        """
        status, answer = await self._ask(f"/names/{quote(host, safe='')}")
        if status == HTTPStatus.NOT_FOUND:
            return NameAnswer(exists=False, reason=str(answer.get("reason", "")))
        if status != HTTPStatus.OK:
            raise UnavailableError(
                str(answer.get("reason") or f"{host} can't be looked up: the agent answers {status}")
            )
        try:
            addresses = tuple(ipaddress.ip_address(address) for address in answer["addresses"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"the agent says of {host} what can't be read: {error!r}") from error
        virtual = bool(answer.get("virtual"))
        return NameAnswer(addresses=addresses, name=str(answer.get("name", "")), virtual=virtual)

    async def destination(self, authority: str, host: str = "") -> Verdict:
        """What would become of a connection.

        Args:
            authority: `HOST:PORT`, as in a CONNECT.
            host: the name that the program had looked up for the address in there, if any.

        Raises:
            UnavailableError: no replica answers.
        """
        query = f"?host={quote(host, safe='')}" if host else ""
        status, answer = await self._ask(f"/destinations/{quote(authority, safe='')}{query}")
        if status == HTTPStatus.OK:
            address, virtual = str(answer.get("address", "")), bool(answer.get("virtual"))
            return Verdict(allowed=True, address=address, virtual=virtual)
        return Verdict(allowed=False, reason=str(answer.get("reason") or f"the agent answers {status}"))

    async def close(self) -> None:
        """Close its connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool[1].close()

    async def _http(self) -> aiohttp.ClientSession:
        socket = self._socket()
        if socket is None:
            raise UnavailableError("there is no session now")
        if self._pool is None or self._pool[0] != socket:
            await self.close()
            connector = aiohttp.UnixConnector(str(socket), limit=_MOST_CONNECTIONS)
            self._pool = (socket, aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT))
        return self._pool[1]

    async def _ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """The first answer of any replica; one that says that it can't say only if no other says more."""
        names = sorted(self._replicas(), key=lambda name: name != self._last)
        if not names:
            raise UnavailableError("the session has no agent now")
        failure: tuple[int, dict[str, Any]] | None = None
        problem = "no answer in time"
        waiting: set[asyncio.Task[tuple[int, dict[str, Any]]]] = set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while names or waiting:
                    if names:
                        # Owned here: whatever is left is cancelled below.
                        waiting.add(asyncio.get_running_loop().create_task(self._ask_one(names.pop(0), path)))
                    pause = SILENT_SECONDS if names else None
                    done, waiting = await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        try:
                            status, answer = task.result()
                        except UnavailableError as error:
                            problem = str(error)
                            continue
                        if status != HTTPStatus.SERVICE_UNAVAILABLE:
                            return status, answer
                        failure = status, answer
        except TimeoutError:
            pass
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        if failure is not None:
            return failure
        raise UnavailableError(f"the agent can't be asked: {problem}")

    async def _ask_one(self, replica: str, path: str) -> tuple[int, dict[str, Any]]:
        url = URL(f"{_AGENT}{path}", encoded=True)
        try:
            http = await self._http()
            async with http.get(url, headers={AGENT_HEADER: question_cluster_name(replica)}) as response:
                if response.content_type != "application/json":
                    raise UnavailableError(f"{replica} answers {response.status}{_hint(response.status)}")
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise UnavailableError(f"{replica}: {str(error) or 'no answer in time'}") from error
        if not isinstance(answer, dict):
            raise UnavailableError(f"{replica} answers what can't be read")
        self._last = replica
        return response.status, answer


def _hint(status: int) -> str:
    match status:
        case HTTPStatus.NOT_FOUND:
            return ", so it is of a version that knows no such questions"
        case HTTPStatus.FORBIDDEN:
            return ", so it does not know the session"
        case _:
            return ""
