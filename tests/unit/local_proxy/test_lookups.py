"""Published names become addresses."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

import pytest

from hairpin.errors import UnavailableError
from hairpin.model.session import AgentAddress, EgressAddress, Session, SessionSpec, SessionStatus
from local_proxy.lookups import AGAIN_SECONDS, LookedUp, system_look_up
from local_proxy.reach import Direct, Replicas


def agent(name, host):
    return AgentAddress(name=name, host=host, tunnel_port=9443, egress_port=9444)


def session(*agents, egress=()):
    status = SessionStatus(agents=agents, egress=egress)
    return Session(
        name="x", namespace="shop", owner="alice", created=datetime.now(UTC), spec=SessionSpec(), status=status
    )


class Names(dict):
    """A resolver and what was told."""

    def __init__(self, **known):
        super().__init__(known)
        self.told = []

    async def look_up(self, host):
        if host not in self:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self[host]

    def reach(self):
        return LookedUp(Direct(), lambda error: self.told.append(str(error)), self.look_up)


async def test_addresses_are_taken_as_they_are_and_never_asked_for_again():
    reach, addresses = Names().reach(), (agent("a", "127.0.0.1"), agent("b", "::1"))
    assert await reach.replicas(session(*addresses)) == Replicas(addresses)
    assert reach.again_seconds is None


async def test_names_become_addresses():
    reach = Names(a=["10.0.0.1", "10.0.0.2"], b=["fd00::1"]).reach()
    asked = session(agent("0", "a"), egress=(EgressAddress(name="1", host="b", port=9444),))
    found = Replicas((agent("0", "10.0.0.1"),), (EgressAddress(name="1", host="fd00::1", port=9444),))
    assert await reach.replicas(asked) == found
    assert reach.again_seconds == AGAIN_SECONDS


async def test_one_of_several_is_kept_as_long_as_it_is_one():
    names = Names(a=["10.0.0.1", "10.0.0.2"])
    reach = names.reach()
    hosts = []
    for answer in (["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.2"], None):
        if answer is None:
            del names["a"]
        else:
            names["a"] = answer
        hosts += [found.host for found in (await reach.replicas(session(agent("0", "a")))).agents]
    assert hosts == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]


async def test_one_that_leads_nowhere_is_left_out_and_told_of_once():
    names = Names(a=["10.0.0.1"])
    reach, asked = names.reach(), session(agent("0", "a"), agent("1", "b"))
    for _ in range(2):
        assert (await reach.replicas(asked)).agents == (agent("0", "10.0.0.1"),)
    [told] = names.told
    assert "published address b can't be looked up: Name or service not known" in told
    names["b"] = ["10.0.0.2"]
    assert (await reach.replicas(asked)).agents == (agent("0", "10.0.0.1"), agent("1", "10.0.0.2"))


@pytest.mark.parametrize(
    "asked", [session(agent("0", "b")), session(agent("0", "a"), egress=(EgressAddress(name="1", host="b", port=1),))]
)
async def test_none_that_leads_anywhere_ends_the_run(asked):
    with pytest.raises(UnavailableError, match="published address b can't be looked up"):
        await Names(a=["10.0.0.1"]).reach().replicas(asked)


async def test_the_system_knows_names():
    assert set(await system_look_up("localhost")) & {"127.0.0.1", "::1"}
