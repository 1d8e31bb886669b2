"""Routing keys in JSON and YAML: `{header: x-env}`."""

from __future__ import annotations

from typing import Any

from hairpin.errors import InvalidFieldError
from hairpin.model.environment import Carrier, RoutingKey
from hairpin.model.match_rules import SUBJECTS
from hairpin.model.shape import Field, Record


def _build_routing_key(found: dict[str, Any], where: str) -> RoutingKey:
    given = [carrier for carrier in Carrier if found[carrier.value] is not None]
    if len(given) != 1:
        value = " and ".join(given)
        problem = "are more than one" if given else "names nothing"
        raise InvalidFieldError(
            where, value, problem, "write one of header, baggage, tracestate, as in {header: x-env}"
        )
    return RoutingKey(given[0], found[given[0].value])


ROUTING_KEY = Record(
    fields={carrier.value: Field(SUBJECTS[carrier.value].name) for carrier in Carrier},
    build=_build_routing_key,
    rules={"minProperties": 1, "maxProperties": 1},
)


def routing_key_from_json(value: Any, where: str = "routingKey") -> RoutingKey:
    """Read a routing key, `{header: x-env}`, `{baggage: env}` or `{tracestate: env}`.

    Raises:
        InvalidFieldError: it can't be used.
    """
    return ROUTING_KEY.read(value, where)


def routing_key_to_json(key: RoutingKey) -> dict[str, Any]:
    """Write a routing key."""
    return {key.carrier.value: key.name}
