"""What becomes of a call: the decision alone. Pure, so that it is tested as a table; the supervisor carries it out.

Order: questions to name servers come to ours; what is this machine's own stays here, unless the user refuses it; then the rules
decide. A refused destination fails as a closed port does, and the reason is said once.
"""

from __future__ import annotations

import errno
import functools
from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from local_proxy.intercept.addresses import Endpoint, IPAddress, UnixPath, authority
from local_proxy.intercept.answers import Answer, problem
from local_proxy.intercept.choices import Connect, UdpPolicy
from local_proxy.intercept.names import Names
from local_proxy.rules import Action, Decision

DNS_PORT = 53
MOST_VERDICTS = 4096
REFUSED_SECONDS = 5.0
"""How long a refusal is believed: someone may have changed the policy for the developer who waits."""
ALLOWED_SECONDS = 60.0
"""How long a permission is: if it is withdrawn, the agent refuses the connection all the same."""
# glibc asks these before a name server; each has a resolver of its own, that knows nothing of the mesh.
_RESOLVERS = (b"/nscd/socket", b"/io.systemd.Resolve", b"/io.systemd.Resolve.Monitor", b"/unscd/socket")


class Transport(Enum):
    """What a socket speaks."""

    TCP = "TCP"
    UDP = "UDP"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Pass:
    """The kernel executes the call as it is."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The call fails."""

    error: int
    line: str = ""
    """To be said to the user, if it is the first time."""


@dataclass(frozen=True, slots=True)
class ToResolver:
    """The socket is connected to our name server instead."""


@dataclass(frozen=True, slots=True)
class ToSink:
    """The UDP socket is connected to a place where it is refused as soon as it sends: many connect and never do."""


@dataclass(frozen=True, slots=True)
class ToGateway:
    """The socket is connected to the gateway."""

    target: str
    """What the agent is asked for, host and port."""
    name: str
    """What the program had looked up, or nothing."""
    ask: bool
    """Whether it is not known yet if the agent would refuse it."""
    exact: bool = False
    """Whether the connect is answered when the agent has dialled."""


Outcome = Pass | Fail | ToResolver | ToSink | ToGateway
PASS = Pass()


class Judge(Protocol):
    """The rules: see `local_proxy.rules`."""

    def decide(self, names: Iterable[str], address: IPAddress | None, port: int) -> Decision:
        """What becomes of a connection."""

    def here(self, names: Iterable[str], address: IPAddress, port: int) -> Decision | None:
        """What the user says of a connection to this machine itself; None if nothing."""


@dataclass(slots=True)
class Machine:
    """Decides.

    Args:
        rules: the user's and the built-in ones.
        names: what was given out for which address.
        name_servers: those of this machine: on loopback too they are asked in our place.
        udp: what becomes of other UDP.
        way: when a connect into the mesh is answered.
    """

    rules: Judge
    names: Names
    name_servers: Container[IPAddress] = frozenset()
    udp: UdpPolicy = UdpPolicy.REFUSE
    way: Connect = Connect.AT_ONCE
    _verdicts: OrderedDict[tuple[str, str], tuple[float, str]] = field(default_factory=OrderedDict)

    def local(self, address: Endpoint | UnixPath | None) -> bool:
        """Whether a call can go on without a look at its socket: nothing else than this machine is meant."""
        if address is None:
            return True
        if isinstance(address, UnixPath):
            return not address.path.endswith(_RESOLVERS)
        if not _is_here(address.address) or self._asks_name_server(address):
            return False
        return self._refused_here(address) is None

    def connect(self, address: Endpoint | UnixPath | None, transport: Transport, now: float) -> Outcome:
        """What becomes of a connect.

        Args:
            address: whereto.
            transport: what the socket speaks.
            now: seconds of a clock that only goes forward.
        """
        if self.local(address):
            return PASS
        if not isinstance(address, Endpoint):
            return Fail(errno.ENOENT)  # so glibc goes on to the name servers
        if transport is Transport.OTHER:
            return PASS
        if self._asks_name_server(address):
            return ToResolver()
        names = self.names.of(address.address)
        decision = self._decided(address, names)
        if transport is Transport.UDP:
            return self._udp_connect(decision)
        match decision.action:
            case Action.LOCAL:
                return PASS
            case Action.REFUSE:
                return Fail(errno.ECONNREFUSED, f"{self.called(address)} is refused by {decision.source}")
            case _:
                return self._mesh(address, names, now)

    def send(self, address: Endpoint | UnixPath | None) -> Outcome | None:
        """What becomes of a datagram with an address; None if it stays on this machine, or is none of the Internet's."""
        if not isinstance(address, Endpoint) or self.local(address):
            return None
        if self._asks_name_server(address):
            return ToResolver()
        if self._udp_connect(self._decided(address, self.names.of(address.address))) == PASS:
            return PASS
        # ECONNREFUSED would speak of a datagram before: Java's unconnected sockets pay no heed to it, and others may send again.
        return Fail(errno.ENETUNREACH, self.udp_line(address))

    def learn(self, target: str, name: str, refusal: str, now: float) -> None:
        """The agent was asked; `refusal` is its reason, or nothing."""
        self._verdicts.pop((target, name), None)
        self._verdicts[target, name] = (now + (REFUSED_SECONDS if refusal else ALLOWED_SECONDS), refusal)
        while len(self._verdicts) > MOST_VERDICTS:
            self._verdicts.popitem(last=False)

    def refusal(self, target: str, name: str, now: float) -> str | None:
        """Why the agent refuses a destination, as far as is known: nothing if it doesn't, None if that is not known."""
        until, refusal = self._verdicts.get((target, name), (now, None))
        return refusal if now < until else None

    def udp_line(self, address: Endpoint) -> str:
        """What is said of a refused datagram."""
        decision = self._decided(address, self.names.of(address.address))
        refused = f"UDP to {self.called(address)} is refused"
        if decision.action is Action.REFUSE:
            return f"{refused} by {decision.source}"
        return f"{refused}: the mesh takes TCP alone; --udp pass sends it from this machine"

    def called(self, address: Endpoint) -> str:
        """A destination in the user's words."""
        names = self.names.of(address.address)
        return f"{authority(names[0], address.port)} ({address.address})" if names else str(address)

    def _mesh(self, address: Endpoint, names: tuple[str, ...], now: float) -> Outcome:
        meant = self.names.meant(address.address)
        target = authority(meant or str(address.address), address.port)
        name = names[0] if names else ""
        refusal = self.refusal(target, name, now)
        if refusal:
            return self.refused(address, refusal)
        if self.way is Connect.EXACT:
            return ToGateway(target, name, ask=False, exact=True)
        return ToGateway(target, name, ask=refusal is None)

    def refused(self, address: Endpoint, refusal: str) -> Fail:
        """The agent would refuse a destination: so do we."""
        return Fail(errno.ECONNREFUSED, f"{self.called(address)} is refused: {refusal}")

    def failed(self, address: Endpoint, to: ToGateway, answer: Answer | None, now: float) -> Fail:
        """What a connect gets that the agent did not answer with a connection.

        Args:
            address: whereto.
            to: what the agent was asked.
            answer: what it said; None if nothing.
            now: see `connect`.
        """
        error, why = problem(answer)
        if error == errno.ECONNREFUSED and answer is not None and answer.refused:
            self.learn(to.target, to.name, answer.refused, now)
            return self.refused(address, why)
        return Fail(error, f"{self.called(address)} can't be connected to: {why}")

    def late(self, address: Endpoint, seconds: float) -> Fail:
        """The agent has said nothing for so long."""
        return Fail(errno.ETIMEDOUT, f"{self.called(address)} can't be connected to: no answer within {seconds:.0f} s")

    def _decided(self, address: Endpoint, names: tuple[str, ...]) -> Decision:
        """What the rules say of a destination, also of a place of this machine itself."""
        return self._refused_here(address) or self.rules.decide(names, address.address, address.port)

    def _udp_connect(self, decision: Decision) -> Pass | ToSink:
        if decision.action is Action.REFUSE:
            return ToSink()
        passes = decision.action is Action.LOCAL or self.udp is UdpPolicy.PASS
        return PASS if passes else ToSink()

    def _refused_here(self, address: Endpoint) -> Decision | None:
        """The user's rule that refuses a place of this machine itself. No rule leads such a place elsewhere."""
        if not _is_here(address.address):
            return None
        decision = self.rules.here(self.names.of(address.address), address.address, address.port)
        return decision if decision is not None and decision.action is Action.REFUSE else None

    def _asks_name_server(self, address: Endpoint) -> bool:
        if address.port != DNS_PORT:
            return False
        return address.address in self.name_servers or not _is_here(address.address)


@functools.lru_cache(1024)
def _is_here(address: IPAddress) -> bool:
    return address.is_loopback or address.is_unspecified
