"""Asks the real Envoy whether it would take a match, before any proxy is sent it.

One bad rule has the whole resource refused: then no session of the target could start or end. What the model can't judge is
the regular expressions, which are RE2's and bounded in size by Envoy.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from hairpin.envoy import config
from hairpin.envoy.process import validate
from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.model.match import And, Match, Not, Or, StringKind
from hairpin.model.match_format import format_match
from hairpin.model.mesh import SocketAddress
from xds_server.generate.steer import Claim, SteeringPoint, match_filters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hairpin.model.match import StringPredicate

KNOWN = 1000
"""How many matches are remembered as good."""


class MatchValidator:
    """Validates matches with regular expressions by `envoy --mode validate`; remembers what it found good."""

    def __init__(self) -> None:
        self._good: dict[Match, None] = {}

    async def __call__(self, match: Match) -> None:
        """Return if Envoy takes it.

        Raises:
            InvalidFieldError: it doesn't; the message has Envoy's reason.
        """
        if match in self._good or not any(p.kind is StringKind.REGEX for p in predicates(match)):
            return
        try:
            await validate(_bootstrap(match))
        except HairpinError as error:
            problem = f"is refused by Envoy: {error}"
            raise InvalidFieldError(
                "spec.match", format_match(match), problem, "write a regular expression of RE2"
            ) from None
        self._good[match] = None
        while len(self._good) > KNOWN:
            del self._good[next(iter(self._good))]


def predicates(match: Match) -> Iterator[StringPredicate]:
    """The string predicates in it."""
    match match:
        case And(parts) | Or(parts):
            for part in parts:
                yield from predicates(part)
        case Not(part):
            yield from predicates(part)
        case _:
            value = getattr(match, "value", None)
            if value is not None:
                yield value


def _bootstrap(match: Match) -> config.Config:
    """The least that has Envoy compile the match: nothing listens in validation."""
    point = SteeringPoint(port=80, app=SocketAddress("127.0.0.1", 80), agent_cluster="outbound|80||agent")
    claim = Claim(session="candidate", created=dt.datetime(2000, 1, 1, tzinfo=dt.UTC), match=match)
    rbac = match_filters(point, [claim])[0].to_dict()["typedConfig"]
    manager = config.http_manager(
        "validate",
        filters=({"name": "match", "typed_config": rbac},),
        route_config={
            "virtual_hosts": [
                config.virtual_host("none", {"match": {"prefix": "/"}, "direct_response": {"status": 404}})
            ]
        },
    )
    listener = {"name": "validate", "address": config.tcp("127.0.0.1", 0), "filter_chains": [{"filters": [manager]}]}
    return {
        "static_resources": {"listeners": [listener]},
        "layered_runtime": config.ISTIO_RUNTIME,
    }
