"""Published addresses by name: looked up here, as everything else on this machine is. Envoy is given IP addresses alone."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hairpin.errors import HairpinError, UnavailableError
from hairpin.model.names import is_address
from hairpin.model.session import AgentAddress, EgressAddress, Session
from local_proxy.reach import Reach, Replicas

AGAIN_SECONDS = 10.0
"""How long an answer is good for: a load balancer may get another address."""
_LOOK_UP_SECONDS = 5.0

_Replica = TypeVar("_Replica", AgentAddress, EgressAddress)
LookUp = Callable[[str], Awaitable[list[str]]]


async def system_look_up(host: str) -> list[str]:
    """A name's addresses, best first: by the system, which knows of VPNs and of its hosts file."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in answers]


class LookedUp:
    """A way to the replicas whose names are replaced by addresses.

    A name keeps its address while it is one of several. A replica whose name leads nowhere is left out and told of; where
    it had an address before, it keeps that.

    Args:
        reach: the way itself.
        on_error: is told of a name that can't be looked up, once.
        look_up: looks one up.
    """

    def __init__(
        self, reach: Reach, on_error: Callable[[HairpinError], None], look_up: LookUp = system_look_up
    ) -> None:
        self._reach = reach
        self._on_error = on_error
        self._look_up = look_up
        self._known: dict[str, str] = {}
        self._told: set[str] = set()
        self._found = False
        self.look_seconds = reach.look_seconds
        self.again_seconds = reach.again_seconds

    async def replicas(self, session: Session) -> Replicas:
        """Where they are.

        Raises:
            UnavailableError: none has a host that leads anywhere, and none ever had.
        """
        found = await self._reach.replicas(session)
        hosts = {agent.host for agent in found.agents} | {replica.host for replica in found.egress}
        names = sorted(host for host in hosts if not is_address(host))
        if not names:
            self.again_seconds = self._reach.again_seconds
            return found
        self.again_seconds = AGAIN_SECONDS
        problems = dict(zip(names, await asyncio.gather(*map(self._renew, names)), strict=True))
        agents = tuple(self._placed(agent) for agent in found.agents if self._leads(agent.host))
        egress = tuple(self._placed(replica) for replica in found.egress if self._leads(replica.host))
        lost = [problem for problem in problems.values() if problem is not None]
        if lost and not self._found and (not agents or len(egress) < min(1, len(found.egress))):
            raise lost[0]
        self._found = True
        for name, problem in problems.items():
            self._tell(name, problem)
        return Replicas(agents, egress)

    async def _renew(self, name: str) -> UnavailableError | None:
        """Look it up; what is wrong, if it leads nowhere."""
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                addresses = await self._look_up(name)
        except TimeoutError:
            return _problem(name, f"no answer in {_LOOK_UP_SECONDS:g} s")
        except (OSError, UnicodeError) as error:
            return _problem(name, (error.strerror or str(error)) if isinstance(error, OSError) else str(error))
        if self._known.get(name) not in addresses:
            self._known[name] = addresses[0]
        return None

    def _leads(self, host: str) -> bool:
        return host in self._known or is_address(host)

    def _placed(self, replica: _Replica) -> _Replica:
        return dataclasses.replace(replica, host=self._known.get(replica.host, replica.host))

    def _tell(self, name: str, problem: UnavailableError | None) -> None:
        if problem is None:
            self._told.discard(name)
        elif name not in self._told:
            self._told.add(name)
            self._on_error(problem)


def _problem(name: str, problem: str) -> UnavailableError:
    remedy = "are you where the operators' names are known (a VPN)?"
    return UnavailableError(f"the agent's published address {name} can't be looked up: {problem}; {remedy}")
