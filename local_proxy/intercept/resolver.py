"""What names mean to the command: as in the pod, except where a rule says that this machine's resolver knows better.

A name of the mesh is asked of the agent, which looks it up as the pod does; its addresses are remembered, so that connections
to them can be judged by name. Where a name has addresses of both families only IPv4 ones are given out: a connection into the
mesh always succeeds at first, so that programs would never turn from an IPv6 address that the pod can't reach.

This machine's search list is not the pod's. A resolver here asks `inventory.corp.example` before `inventory`: if the mesh has
an `inventory`, the longer name is denied, and the shorter one asked next.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from local_proxy.intercept.addresses import IPAddress
from local_proxy.intercept.dns_message import (
    LARGEST,
    BadMessageError,
    Code,
    Query,
    Record,
    Type,
    address_record,
    addresses,
    answer,
    failure,
    name_record,
    read_query,
    reverse_address,
)
from local_proxy.intercept.names import Names
from local_proxy.rules import Action, Decision

KNOWN_SECONDS = 5
"""How long an answer is kept, here and by the program."""
UNKNOWN_SECONDS = 1
"""How long a denial is."""
ANSWER_SECONDS = 4.5
"""How long the agent may take: libc asks the next name server after five seconds."""
STRAGGLER_SECONDS = 0.5
"""How long a name of the search list is waited for, once the name itself is known."""
_MOST_NAMES = 4096
_LOOPBACK: tuple[IPAddress, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name means in the mesh: addresses; or none, and then it exists or not."""

    addresses: tuple[IPAddress, ...] = ()
    virtual: bool = False
    """It has no address of its own, and is reached by name."""
    code: Code = Code.NO_ERROR

    @property
    def exists(self) -> bool:
        """Whether there is such a name."""
        return self.code is Code.NO_ERROR


NO_SUCH_NAME = Meaning(code=Code.NO_SUCH_NAME)
CANNOT_SAY = Meaning(code=Code.SERVER_FAILURE)


class NameRules(Protocol):
    """Who knows a name; see `local_proxy.rules`."""

    def decide_name(self, host: str) -> Decision:
        """Mesh: the agent; local: this machine's resolver; refuse: nobody."""


class Resolver:
    """Answers messages.

    Args:
        rules: who knows a name.
        names: told what was given out.
        ask: what a name means in the mesh; CANNOT_SAY if the agent can't be asked.
        forward: sends a question to this machine's name servers: their answer, or None. The flag says by TCP.
        search: tells this machine's search list.
        tasks: owns the questions: who asked first may give up before others who wait for the same answer.
    """

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        rules: NameRules,
        names: Names,
        *,
        ask: Callable[[str], Awaitable[Meaning]],
        forward: Callable[[bytes, bool], Awaitable[bytes | None]],
        search: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._tasks = tasks
        self._rules = rules
        self._names = names
        self._ask = ask
        self._forward = forward
        self._search = search
        self._meanings: OrderedDict[str, tuple[float, Meaning]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Meaning]] = {}

    async def answer(self, data: bytes, *, stream: bool = False) -> bytes | None:
        """The answer to a message, if it deserves one.

        Args:
            data: the message.
            stream: whether it came by TCP, where answers may be long.
        """
        try:
            query = read_query(data)
        except BadMessageError as error:
            return None if error.identity is None else failure(error.identity, error.code)
        limit = LARGEST if stream else query.datagram
        if self._forwarded(query):
            reply = await self._forward(data, stream)
            if reply is None:
                return answer(query, Code.SERVER_FAILURE, seconds=0, limit=limit)
            self._names.remember(query.name, addresses(reply))
            return reply
        code, records = await self._records(query)
        seconds = KNOWN_SECONDS if records else UNKNOWN_SECONDS
        return answer(query, code, records, seconds=seconds, limit=limit)

    def _forwarded(self, query: Query) -> bool:
        """Whether this machine's name servers are to answer."""
        if _is_localhost(query.name):
            return False
        if query.type == Type.PTR and reverse_address(query.name) is not None:
            return False
        if self._rules.decide_name(query.name).action is Action.LOCAL:
            return True
        # The agent tells addresses alone. Of public names the rest is known here too; of the cluster's, to nobody.
        return query.type not in _TOLD and not _in_cluster(query.name)

    async def _records(self, query: Query) -> tuple[Code, list[Record]]:
        match query.type:
            case Type.A | Type.AAAA:
                meaning = await self._meaning(query.name)
                return meaning.code, [
                    record for record in map(address_record, meaning.addresses) if record.type == query.type
                ]
            case Type.PTR:
                address = reverse_address(query.name)
                names = self._names.of(address) if address is not None else ()
                return (Code.NO_ERROR, [name_record(names[0])]) if names else (Code.NO_SUCH_NAME, [])
            case Type.HTTPS | Type.SVCB:
                return Code.NO_ERROR, []  # they could lead past the addresses that we give out
            case _:
                return Code.NOT_IMPLEMENTED, []

    async def _meaning(self, name: str) -> Meaning:
        if _is_localhost(name):
            return Meaning(_LOOPBACK)
        if self._rules.decide_name(name).action is Action.REFUSE:
            # An address that stands for it: the connect is refused then, and says by which rule.
            return Meaning((self._names.stand_in(name),))
        meaning = await self._searched(name)
        if meaning.virtual:
            return Meaning((self._names.stand_in(name),))
        four = tuple(address for address in meaning.addresses if isinstance(address, IPv4Address))
        given = four or meaning.addresses
        self._names.remember(name, given)
        return Meaning(given, code=meaning.code)

    async def _searched(self, name: str) -> Meaning:
        bare = self._bare(name)
        if bare is None:
            return await self._lookup(name)
        whole = self._lookup(name)
        short = await self._lookup(bare)
        if not short.exists:
            return await whole
        done, _ = await asyncio.wait([whole], timeout=STRAGGLER_SECONDS)
        # If both are the same the whole name was meant, or it makes no difference.
        return whole.result() if done and whole.result() == short else NO_SUCH_NAME

    def _bare(self, name: str) -> str | None:
        """The name without a domain of the search list, if it has one and the rest is the mesh's to know."""
        for domain in sorted(self._search(), key=len, reverse=True):
            bare = name.removesuffix(f".{domain}")
            if bare not in (name, "") and self._rules.decide_name(bare).action is Action.MESH:
                return bare
        return None

    def _lookup(self, name: str) -> asyncio.Future[Meaning]:
        """Ask the agent, or remember; several who ask at once get one answer."""
        until, meaning = self._meanings.get(name, (0.0, CANNOT_SAY))
        if time.monotonic() < until:
            known = asyncio.get_running_loop().create_future()
            known.set_result(meaning)
            return known
        asking = self._asking.get(name)
        if asking is None:
            self._asking[name] = asking = self._tasks.create_task(self._asked(name))
        return asyncio.shield(asking)

    async def _asked(self, name: str) -> Meaning:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                meaning = await self._ask(name)
        except TimeoutError:
            return CANNOT_SAY
        finally:
            del self._asking[name]
        if meaning != CANNOT_SAY:
            self._keep(name, meaning)
        return meaning

    def _keep(self, name: str, meaning: Meaning) -> None:
        self._meanings.pop(name, None)
        seconds = KNOWN_SECONDS if meaning.exists else UNKNOWN_SECONDS
        self._meanings[name] = (time.monotonic() + seconds, meaning)
        while len(self._meanings) > _MOST_NAMES:
            self._meanings.popitem(last=False)


_TOLD = frozenset({Type.A, Type.AAAA, Type.PTR, Type.HTTPS, Type.SVCB, Type.ANY})


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _in_cluster(name: str) -> bool:
    return "." not in name or name.endswith((".local", ".svc", ".internal"))
