"""`hairpin explain-egress`: what becomes of a connection of the command's, which rule says so, and what the cluster says.

A name is looked up where the command's would be. For a destination that is the mesh's, the agents are asked by the laptop's
Envoy of a session that takes no requests, and is given back after the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from hairpin.errors import InvalidFieldError
from hairpin.model.egress import Address
from hairpin.model.names import is_address
from hairpin.ports import free_ports
from local_proxy.console import Console
from local_proxy.control_planes import control_plane
from local_proxy.linked import hold, linked
from local_proxy.options import RunOptions
from local_proxy.questions import NameAnswer, Questions, Verdict
from local_proxy.rule_flags import all_rules
from local_proxy.rules import DEFAULT, LAST_PORT, Action, Decision, Rules
from local_proxy.ways import OwnListeners

ALLOWED, UNKNOWN, CANNOT_SAY, REFUSED = 0, 3, 5, 7
"""Exit codes: 3 and 5 as errors have them."""
_MOST_ADDRESSES = 16
"""Of a name, to ask about: a headless Service may have hundreds, all alike."""


class Cluster(Protocol):
    """Who is asked: `Questions`."""

    async def name(self, host: str) -> NameAnswer:
        """Where a name leads."""

    async def destination(self, authority: str, host: str = "") -> Verdict:
        """What would become of a connection."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What is asked about."""

    host: str
    """A name, or an address without brackets."""
    port: int

    def __str__(self) -> str:
        return _authority(self.host, self.port)


@dataclass(slots=True)
class Explanation:
    """What to say, and the exit code."""

    lines: list[str] = field(default_factory=list)
    exit_code: int = ALLOWED


def parse_destination(text: str) -> Destination:
    """Read `HOST:PORT`.

    Raises:
        InvalidFieldError: it is none.
    """
    remedy = "write one host and one port: inventory:80, 10.96.1.2:443 or [fd00::1]:443"
    found = re.fullmatch(r"(?:\[(?P<six>[^\]\s]+)\]|(?P<host>[^\s:/@\[\]*]+)):(?P<port>[0-9]{1,5})", text, re.ASCII)
    if found is None:
        raise InvalidFieldError("HOST:PORT", text, "is no destination", remedy)
    port = int(found["port"])
    if not 1 <= port <= LAST_PORT:
        raise InvalidFieldError("HOST:PORT", text, "has no port number", remedy)
    host = found["six"] or found["host"].rstrip(".").lower()
    if not host or (found["six"] and not (is_address(host) and ":" in host and "%" not in host)):
        raise InvalidFieldError("HOST:PORT", text, "has no IPv6 address in the brackets", remedy)
    return Destination(host, port)


async def explain(
    wanted: Destination,
    rules: Rules,
    cluster: Callable[[], AbstractAsyncContextManager[Cluster]] | None,
    resolve: Callable[[str], Awaitable[Sequence[Address]]],
) -> Explanation:
    """Say what becomes of a connection.

    Args:
        wanted: whereto.
        rules: all that hold.
        cluster: opens the way to the agents, and is called only if they are to be asked; None: they never are.
        resolve: this machine's resolver; no addresses: it knows no such name.

    Raises:
        HairpinError: the cluster can't be asked.
    """
    async with contextlib.AsyncExitStack() as opened:
        asked: list[Cluster] = []

        async def agents() -> Cluster | None:
            if cluster is not None and not asked:
                asked.append(await opened.enter_async_context(cluster()))
            return asked[0] if asked else None

        return await _Asking(wanted, rules, agents, resolve).explain()


@dataclass(slots=True)
class _Asking:
    wanted: Destination
    rules: Rules
    agents: Callable[[], Awaitable[Cluster | None]]
    resolve: Callable[[str], Awaitable[Sequence[Address]]]
    said: Explanation = field(default_factory=Explanation)

    async def explain(self) -> Explanation:
        host, port = self.wanted.host, self.wanted.port
        if is_address(host):
            address = ipaddress.ip_address(host)
            await self._connections({address: self.rules.decide((), address, port)}, name="")
            return self.said
        by_name = self.rules.decide((host,), None, port)
        looked_up = self.rules.decide_name(host)
        # No address can change this, unless a rule for a network comes before.
        if Action.REFUSE in (by_name.action, looked_up.action) and not any(rule.network for rule in self.rules.user):
            self._end(by_name if by_name.action is Action.REFUSE else looked_up, REFUSED)
        elif looked_up.action is Action.REFUSE:
            self._end(looked_up, REFUSED)
        elif looked_up.action is Action.LOCAL:
            await self._looked_up_here(looked_up, by_name)
        else:
            await self._looked_up_in_the_cluster(by_name)
        return self.said

    async def _looked_up_here(self, looked_up: Decision, by_name: Decision) -> None:
        host = self.wanted.host
        addresses = await self.resolve(host)
        if not addresses:
            self._end(by_name, UNKNOWN)
            self._say(f"this machine's resolver, which is asked ({looked_up.source}), does not know {host}")
            return
        told = f"{host} is {_listed(addresses)}: this machine's resolver says so ({looked_up.source})"
        await self._connections(self._decided(addresses), host, told)

    async def _looked_up_in_the_cluster(self, by_name: Decision) -> None:
        host = self.wanted.host
        agents = await self.agents()
        if agents is None:
            self._end(by_name, ALLOWED)
            self._say(f"{host} is looked up in the cluster, which was not asked")
            if any(rule.network for rule in self.rules.user):
                self._say("your rules for networks count once its addresses are known")
            return
        answer = await agents.name(host)
        if not answer.exists:
            self._end(by_name, UNKNOWN)
            self._say(f"the command is told that there is no such name: {answer.reason}")
        elif answer.virtual:
            self._head(by_name)
            self._say(f"{host} has no address of its own in this mesh: the command gets one that stands for the name")
            if by_name.action is Action.MESH:
                await self._verdicts([str(self.wanted)], "")
        elif not answer.addresses:
            self._end(by_name, UNKNOWN)
            self._say(f"the cluster knows {host}, and has no address for it")
        else:
            full = f" ({answer.name})" if answer.name not in ("", host) else ""
            told = f"{host} is {_listed(answer.addresses)}: the cluster says so{full}"
            await self._connections(self._decided(answer.addresses), host, told)

    def _decided(self, addresses: Sequence[Address]) -> dict[Address, Decision]:
        # As the command's name server gives them out: of both families IPv4 alone.
        chosen = [address for address in addresses if address.version == 4] or addresses  # noqa: PLR2004
        return {a: self.rules.decide((self.wanted.host,), a, self.wanted.port) for a in chosen[:_MOST_ADDRESSES]}

    async def _connections(self, decided: Mapping[Address, Decision], name: str, told: str = "") -> None:
        """What becomes of connections to these addresses: mostly one thing."""
        decisions = tuple(dict.fromkeys(decided.values()))
        for decision in decisions:
            only = [address for address in decided if decided[address] == decision] if len(decisions) > 1 else ()
            self._head(decision, only)
        if told:
            self._say(told)
        actions = {decision.action for decision in decisions}
        if actions == {Action.REFUSE}:
            self.said.exit_code = REFUSED
        if Action.MESH in actions:
            mesh = [address for address, decision in decided.items() if decision.action is Action.MESH]
            other_ways = Action.LOCAL in actions
            await self._verdicts([_authority(str(a), self.wanted.port) for a in mesh], name, other_ways=other_ways)

    async def _verdicts(self, authorities: Sequence[str], name: str, *, other_ways: bool = False) -> None:
        """What the agents say of connections into the mesh."""
        agents = await self.agents()
        if agents is None:
            self._say("whether the cluster lets it through was not asked")
            return
        verdicts = await asyncio.gather(*(agents.destination(authority, name) for authority in authorities))
        allowed = [a for a, verdict in zip(authorities, verdicts, strict=True) if verdict.allowed]
        if allowed:
            self._say(f"allowed: the agent connects to {_listed(allowed)}")
        for reason in dict.fromkeys(verdict.reason for verdict in verdicts if not verdict.allowed):
            self._say(f"refused by the agent: {reason}")
        if not allowed and not other_ways:
            self.said.exit_code = REFUSED

    def _end(self, decision: Decision, exit_code: int) -> None:
        self._head(decision)
        self.said.exit_code = exit_code

    def _head(self, decision: Decision, only: Sequence[Address] = ()) -> None:
        what = {
            Action.MESH: "goes into the mesh",
            Action.LOCAL: "goes out from this machine, as without hairpin",
            Action.REFUSE: "is refused on this machine",
        }[decision.action]
        which = f" at {_listed(only)}" if only else ""
        source = "by default" if decision == DEFAULT else decision.source
        self._say(f"{self.wanted}{which} {what}: {source}")

    def _say(self, text: str) -> None:
        self.said.lines.append(text)


async def explain_egress(
    options: RunOptions, wanted: Destination, *, offline: bool, environ: Mapping[str, str]
) -> Explanation:
    """Explain, with the session that asking takes.

    Args:
        options: of `hairpin run --mode egress`.
        wanted: whereto.
        offline: whether to leave the cluster alone.
        environ: the user's own environment.

    Raises:
        HairpinError: the cluster can't be asked.
    """
    rules = replace(all_rules(options.rules, environ), listened=OwnListeners())
    return await explain(wanted, rules, None if offline else lambda: _agents(options), resolve_here)


@contextlib.asynccontextmanager
async def _agents(options: RunOptions) -> AsyncIterator[Cluster]:
    """A session that takes no requests, for as long as the agents are asked."""
    async with control_plane(options.connection) as plane:
        port = next(free_ports())
        async with linked(options, plane, Console(quiet=True), egress_port=port) as link, asyncio.TaskGroup() as tasks:
            holding = tasks.create_task(hold(link))
            try:
                await link.first_claim()
                await link.tunnel_up()  # so the agents know the session
                async with Questions.opened(
                    lambda: link.laptop.questions if link.laptop is not None else None,
                    lambda: [agent.name for agent in link.session.status.agents],
                ) as questions:
                    yield questions
            finally:
                holding.cancel()


async def resolve_here(host: str) -> Sequence[Address]:
    """The addresses that this machine's resolver has for a name."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listed(items: Sequence[object]) -> str:
    shown = ", ".join(map(str, items[:_MOST_ADDRESSES]))
    return f"{shown} and {len(items) - _MOST_ADDRESSES} more" if len(items) > _MOST_ADDRESSES else shown
