"""Environments in JSON and YAML: `{name: alice, routingKey: {header: x-env}}`."""

from __future__ import annotations

from typing import Any

from hairpin.model.environment import Environment, EnvironmentResource, RoutingKey
from hairpin.model.names import PATH
from hairpin.model.routing_key_json import ROUTING_KEY, routing_key_to_json
from hairpin.model.session_shapes import API_VERSION, ENVIRONMENT
from hairpin.model.shape import Choice, Field, ListOf, Record, Text

ENVIRONMENT_OBJECT = Record(
    fields={"name": Field(ENVIRONMENT, needed=True), "routingKey": Field(ROUTING_KEY, default=RoutingKey())},
    build=lambda found, _: Environment(found["name"], found["routingKey"]),
)

USER = Text(
    what="a user's name", remedy="write it as `kubectl auth whoami` shows it", pattern=r"[^\x00-\x1f\x7f]+", least=1
)
ENVIRONMENT_SPEC = Record(
    fields={
        "routingKey": Field(ROUTING_KEY),
        "members": Field(ListOf(USER, most=1000), default=()),
        "description": Field(Text(what="a text", remedy="shorten it", most=1024), default=""),
    },
    build=lambda found, _: found,
)
RESOURCE_METADATA = Record(fields={"name": Field(PATH, needed=True)}, build=lambda found, _: found, open=True)


def _build_resource(found: dict[str, Any], _: str) -> EnvironmentResource:
    spec = found["spec"] or {"routingKey": None, "members": (), "description": ""}
    return EnvironmentResource(
        name=found["metadata"]["name"],
        routing_key=spec["routingKey"],
        members=frozenset(spec["members"]),
        description=spec["description"],
    )


ENVIRONMENT_RESOURCE = Record(
    fields={
        "apiVersion": Field(Choice((API_VERSION,))),
        "kind": Field(Choice(("Environment",))),
        "metadata": Field(RESOURCE_METADATA, needed=True),
        "spec": Field(ENVIRONMENT_SPEC),
    },
    build=_build_resource,
)


def environment_resource_from_json(document: Any) -> EnvironmentResource:
    """Read the custom resource `Environment`.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    return ENVIRONMENT_RESOURCE.read(document, "")


def environment_from_json(value: Any, where: str = "environment") -> Environment:
    """Read an environment; without a routing key it has the usual one.

    Raises:
        InvalidFieldError: it can't be used.
    """
    return ENVIRONMENT_OBJECT.read(value, where)


def environment_to_json(environment: Environment) -> dict[str, Any]:
    """Write an environment."""
    return {"name": environment.name, "routingKey": routing_key_to_json(environment.routing_key)}
