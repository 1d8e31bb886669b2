from __future__ import annotations

import pytest

from hairpin.errors import InvalidFieldError
from hairpin.model.environment import Carrier, EnvironmentResource, RoutingKey
from hairpin.model.environment_json import environment_resource_from_json


def test_a_resource_is_read():
    document = {
        "apiVersion": "hairpin.dev/v1alpha1",
        "kind": "Environment",
        "metadata": {"name": "alice", "uid": "…"},
        "spec": {"routingKey": {"baggage": "env"}, "members": ["alice@example.com"], "description": "Alice's"},
    }
    found = environment_resource_from_json(document)
    assert found == EnvironmentResource(
        name="alice",
        routing_key=RoutingKey(Carrier.BAGGAGE, "env"),
        members=frozenset({"alice@example.com"}),
        description="Alice's",
    )
    assert found.admits("alice@example.com")
    assert not found.admits("bob@example.com")


def test_without_a_spec_it_has_the_meshs_key_and_is_everyones():
    found = environment_resource_from_json({"metadata": {"name": "alice"}})
    assert found == EnvironmentResource(name="alice")
    assert found.admits("bob")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"routingKey": {}},
            "spec.routingKey: '' names nothing; write one of header, baggage, tracestate, as in {header: x-env}",
        ),
        ({"member": []}, "spec.member: [] is in no known field; did you mean 'members'?"),
        (
            {"members": [""]},
            "spec.members[0]: '' is empty; write it as `kubectl auth whoami` shows it",
        ),
    ],
)
def test_what_cannot_be_used_is_named(spec, message):
    with pytest.raises(InvalidFieldError) as caught:
        environment_resource_from_json({"metadata": {"name": "alice"}, "spec": spec})
    assert str(caught.value) == message
