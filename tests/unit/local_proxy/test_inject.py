"""Whose header is added, and what is said of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from hairpin.errors import SkewError
from hairpin.model.environment import Carrier, Environment, RoutingKey
from hairpin.model.session import Mode, Session, SessionSpec, SessionStatus
from hairpin.model.version import OURS, Version
from local_proxy.inject import injected, injection
from local_proxy.messages import injection_text

SESSION = Session(
    name="a", namespace="shop", owner="alice", created=datetime.now(UTC), spec=SessionSpec(mode=Mode.EGRESS, environment="alice")
)  # fmt: skip
BAGGAGE = RoutingKey(Carrier.BAGGAGE, "env")


def told(**status):
    return dataclasses.replace(SESSION, status=SessionStatus(**status))


def test_the_sessions_own_key_counts_before_the_meshs():
    assert injected(told(routing_key=BAGGAGE), RoutingKey()) == Environment("alice", BAGGAGE)
    assert injected(told(routing_key=BAGGAGE), None) == Environment("alice", BAGGAGE)
    assert injected(SESSION, BAGGAGE) == Environment("alice", BAGGAGE)


def test_a_control_plane_that_does_not_say_is_named_and_what_helps():
    with pytest.raises(SkewError) as caught:
        injected(told(server=Version("0.1.0")), None)
    assert str(caught.value) == (
        "the control plane is 0.1.0 (protocol 1) and does not say what marks the requests of environment alice, "
        f"which --inject-env of {OURS} adds; upgrade it with `hairpin install`, or leave out --inject-env"
    )


@pytest.mark.parametrize(
    ("key", "text"), [(RoutingKey(), "header x-env=alice"), (BAGGAGE, "baggage env=alice")]
)  # fmt: skip
def test_what_is_added_is_told(key, text):
    assert injection_text(Environment("alice", key)) == f"the command's HTTP requests that lack it get {text}"


def test_nothing_is_added_without_an_environment():
    assert injection(None) == ()


def test_a_headers_value_is_no_format():
    (mutation,) = injection(Environment("50%"))
    (added,) = mutation["typed_config"]["mutations"]["request_mutations"]
    assert added["append"] == {"header": {"key": "x-env", "value": "50%%"}, "append_action": "ADD_IF_ABSENT"}
