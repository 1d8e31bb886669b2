"""UDP under the real kernel's seccomp user notification, without any capability: `datagrams.py` has the cases."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import intercepted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")

SCRIPT = str(Path(__file__).parent / "datagrams.py")
NAMES = {"inventory": ["10.1.2.3"]}
NOBODY = 1
"""The gateway's port: no case calls by TCP."""


async def ended_well(*command, **settings):
    ended = await intercepted.run(*command, gateway=NOBODY, names=NAMES, **settings)
    assert ended.code == 0, (ended.output, ended.lines)
    return ended


async def in_case(name, **settings):
    return await ended_well(sys.executable, SCRIPT, name, **settings)


async def test_sendmsg_is_refused_as_sendto_is():
    ended = await in_case("refused_by_sendmsg")
    refused = [line.partition(" is refused: the mesh takes TCP alone")[0] for line in ended.lines]
    assert refused == [
        "UDP to 10.1.2.3:443",
        "UDP to [2001:db8::1]:443",
        "UDP to 10.1.2.4:443",
        "UDP to 10.1.2.5:443",
        "UDP to 10.1.2.6:443",
        "UDP to 224.0.0.251:5353",
    ]


async def test_what_is_sent_beside_a_refused_message_arrives_or_is_not_said_to_be_sent():
    ended = await in_case("refused_beside_others")
    assert len(ended.lines) == 1


@pytest.mark.parametrize(
    ("settings", "fence"),
    [({"rules": [["local", "192.0.2.0/24"]]}, "1 0"), ({"udp": "pass"}, "0 0")],
    ids=["by rule", "all"],
)
async def test_a_destination_that_is_kept_local_is_sent_to(settings, fence):
    ended = await in_case("kept_local", **settings)
    assert (ended.output.splitlines(), ended.lines) == ([fence] * 6, [])


@pytest.mark.parametrize("name", ["as_asked_for", "more_than_places", "out_of_place", "at_home"])
async def test_sockets(name):
    assert (await in_case(name)).lines == []


@pytest.mark.parametrize("starter", [[], ["sh", "-c", '"$@"; exit $?', "sh"]], ids=["started", "started by a shell"])
@pytest.mark.parametrize("udp", ["refuse", "pass"])
async def test_answers_of_name_servers_are_read_by_messages(starter, udp):
    ended = await ended_well(*starter, sys.executable, SCRIPT, "names_by_messages", udp=udp)
    assert ended.lines == []
