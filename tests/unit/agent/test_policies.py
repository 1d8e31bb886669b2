from __future__ import annotations

import asyncio
import json

import pytest

from agent.policies import Policies
from hairpin.errors import InvalidFieldError, UnavailableError
from hairpin.model.egress import Action, SessionRules

DENY = {"default": "Deny", "rules": []}
ALLOW = {"default": "Allow", "rules": []}


def line(**sessions: object) -> bytes:
    return json.dumps({"sessions": sessions}).encode()


async def test_a_line_replaces_the_one_before():
    policies = Policies(patience=0.01)
    assert not policies.known
    policies.take(line(alice=DENY, bob=ALLOW))
    assert await policies.rules("alice") == SessionRules(default=Action.DENY)
    policies.take(line(bob=DENY))
    assert await policies.rules("bob") == SessionRules(default=Action.DENY)
    with pytest.raises(UnavailableError, match="for session alice"):
        await policies.rules("alice")


@pytest.mark.parametrize(
    "bad",
    [b"{", b"[]", b"3", b"{}", b'{"sessions": 3}', b'{"sessions": {"a": {}}}', b'{"sessions": {"a": []}}',
     b'{"sessions": {}, "forbidden": ["x"]}', b'{"sessions": {}, "forbidden": 3}',
     b'{"sessions": {"a": {"default": "Allow", "rules": [{"action": "Perhaps"}]}}}'],
)  # fmt: skip
async def test_what_can_not_be_read_changes_nothing(bad):
    policies = Policies(patience=0.01)
    policies.take(line(alice=DENY))
    with pytest.raises(InvalidFieldError):
        policies.take(bad)
    assert (await policies.rules("alice")).default is Action.DENY
    assert policies.forbidden == {}


async def test_a_session_that_is_as_new_as_its_connection_waits_for_its_rules():
    policies = Policies()
    policies.take(line(bob=DENY))
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(policies.rules("alice"))
        await asyncio.sleep(0)
        policies.take(line(bob=DENY))
        await asyncio.sleep(0)
        assert not waiting.done()
        policies.take(line(alice=ALLOW))
    assert waiting.result() == SessionRules()


async def test_a_control_plane_without_policies_allows_everything_but_takes_none_back():
    policies = Policies(patience=0.01)
    policies.there_are_none()
    assert policies.known
    assert await policies.rules("anyone") == SessionRules()
    policies.take(line(alice=DENY))
    policies.there_are_none()
    assert (await policies.rules("alice")).default is Action.DENY
    with pytest.raises(UnavailableError):
        await policies.rules("anyone")


async def test_whoever_needs_to_know_hears_which_sessions_there_are():
    heard = []
    policies = Policies()
    policies.on_sessions = heard.append
    policies.take(line(alice=DENY, bob=ALLOW))
    policies.take(line())
    assert heard == [{"alice", "bob"}, set()]
