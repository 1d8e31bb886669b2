"""Environment: a feature environment's name and the routing key that marks its requests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hairpin.model.match import And, BaggageMember, Header, Match, StringKind, StringPredicate, TracestateMember


class Carrier(StrEnum):
    """What carries the routing key."""

    HEADER = "header"
    BAGGAGE = "baggage"
    TRACESTATE = "tracestate"


@dataclass(frozen=True, slots=True)
class RoutingKey:
    """The header, or the member of `baggage` or `tracestate`, whose value is the environment's name."""

    carrier: Carrier = Carrier.HEADER
    name: str = "x-env"


@dataclass(frozen=True, slots=True)
class Environment:
    """A feature environment."""

    name: str
    routing_key: RoutingKey = RoutingKey()

    @property
    def match(self) -> Match:
        """The requests of this environment."""
        value = StringPredicate(StringKind.EXACT, self.name)
        match self.routing_key.carrier:
            case Carrier.HEADER:
                return Header(self.routing_key.name, value)
            case Carrier.BAGGAGE:
                return BaggageMember(self.routing_key.name, value)
            case Carrier.TRACESTATE:
                return TracestateMember(self.routing_key.name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentResource:
    """What operators say of a feature environment: the custom resource `Environment`."""

    name: str
    routing_key: RoutingKey | None = None
    """None: the mesh's."""
    members: frozenset[str] = frozenset()
    """The names of the users who may hold its sessions; empty: everyone."""
    description: str = ""

    def admits(self, user: str) -> bool:
        """Whether this user may hold sessions of the environment."""
        return not self.members or user in self.members


def requests_of(environment: Environment | None, match: Match | None) -> Match:
    """The environment's requests that satisfy a session's own match; one of the two is there."""
    parts = [part for part in (environment.match if environment else None, match) if part is not None]
    return parts[0] if len(parts) == 1 else And(tuple(parts))
