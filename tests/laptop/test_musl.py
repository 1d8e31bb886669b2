"""musl's resolver before 1.2.4 and since, in real static binaries: it reads by recvfrom or recvmsg, and asks by TCP or does not."""

from __future__ import annotations

import sys

import pytest

from tests.laptop import builds
from tests.support import intercepted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")

VERSIONS = ("1.2.3", "1.2.5")
NOBODY = 1
"""The gateway's port where nothing is called."""
MANY = [f"10.1.2.{number}" for number in range(1, 41)]
"""More addresses than a datagram of 512 bytes has room for (30 of this name), and fewer than musl takes (48)."""


@pytest.fixture(params=VERSIONS)
def version(request, programs):
    return request.param


async def fetch(version, *arguments, **settings):
    program = builds.part("musl") / f"fetch-{version}"
    return await intercepted.run(str(program), *arguments, **settings)


@pytest.mark.parametrize("udp", ["refuse", "pass"])
async def test_an_answer_that_is_too_long_for_a_datagram_is_asked_for_by_tcp(version, udp):
    """musl 1.2.3 can't, and takes the addresses that there is room for; so this also says that the two binaries are two."""
    ended = await fetch(version, "names", "many", gateway=NOBODY, names={"many": MANY}, udp=udp)
    found = ended.output.split()
    assert (ended.code, set(found) - set(MANY), ended.lines) == (0, set(), [])
    assert len(found) == len(set(found)) == (30 if version == "1.2.3" else len(MANY))


@pytest.mark.parametrize("way", ["plain", "thread", "six"])
@pytest.mark.parametrize(
    ("name", "meant"), [("four", "10.1.2.3:80"), ("six", "[2001:db8::1]:80")], ids=["IPv4", "IPv6"]
)
async def test_a_call_by_each_family(version, way, name, meant):
    """Several IPv6 addresses are sorted by the source that the kernel has for each: UDP sockets are connected, and send nothing."""
    names = {"four": ["10.1.2.3"], "six": ["2001:db8::1", "2001:db8::2"]}
    async with intercepted.gateway() as envoy:
        ended = await fetch(version, f"http://{name}/", "-", way, gateway=envoy.port, names=names)
    assert (ended.code, ended.output.split(), ended.lines) == (0, ["answer", "200", meant, name], [])
    assert [str(header.destination) for header in envoy.headers] == [meant]
