"""UDP by programs' own means, in the embedded mesh: what is refused is refused in their words, what is passed arrives, nothing is lost.

What docs/interception.md says of UDP is held against Go, Node and Java here; `datagrams.py` has the system calls themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys

import pytest

from tests.integration.test_egress import own_address
from tests.laptop.runs import driven, unprivileged
from tests.laptop.table import JAVA, Program
from tests.support.mesh import echo_mesh, running_mesh

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120, func_only=True)]

FAR, FAR_6 = "10.1.2.3:443", "[2001:db8::1]:443"
RULED = "10.1.2.4:443"
"""What a rule refuses where others are passed."""


def program(name: str, part: str, argv: tuple[str, ...], way: str, refused: str) -> Program:
    return Program(name=f"{name}-{way}", part=part, argv=(*argv, "{to}", way), refused=refused, unknown="")


PROGRAMS = (
    # A connected socket learns it by what it reads, as of any port that is closed.
    *(
        program("go", "go", ("{folder}/udp",), way, f"error {words}")
        for way, words in (
            ("Write", r"read udp \S+: (recvfrom|read): connection refused"),
            ("Write4", r"read udp4 \S+: (recvfrom|read): connection refused"),
            ("WriteToUDP", r"write udp \S+: sendto: network is unreachable"),
            ("WriteToUDP4", r"write udp4 \S+: sendto: network is unreachable"),
            ("WriteMsgUDP", r"write udp \S+: sendmsg: network is unreachable"),
            ("WriteMsgUDP4", r"write udp4 \S+: sendmsg: network is unreachable"),
        )
    ),
    program("node", "node", ("node", "{folder}/udp.js"), "send", r"error ENETUNREACH send ENETUNREACH "),
    program("node", "node", ("node", "{folder}/udp.js"), "connect", r"error ECONNREFUSED (recvmsg|send) ECONNREFUSED"),
    *(
        program("java", "java", (*JAVA, "ByDatagramSocket"), way, rf"error java\.net\.{words}")
        for way, words in (
            ("send", "SocketException: Network is unreachable"),
            ("connect", "PortUnreachableException"),
            ("channel", "SocketException: Network is unreachable"),
        )
    ),
)
QUICK = [each for each in PROGRAMS if each.part != "java"]
"""Those that take milliseconds to start."""
BY_IPV6 = [each for each in QUICK if not each.name.endswith("4")]


class Echo(asyncio.DatagramProtocol):
    """Answers with what it got, and counts it."""

    def __init__(self) -> None:
        self.count = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        self.count += 1
        self.transport.sendto(data, source)


@contextlib.asynccontextmanager
async def echo(host):
    """Its HOST:PORT."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Echo, local_addr=(host, 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}", protocol
    finally:
        transport.close()


def wanted(column, to, programs=PROGRAMS):
    return [each.case(f"{each}/{column}", to, "") for each in programs]


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory, programs):
    async with running_mesh(echo_mesh(), tmp_path_factory.mktemp("udp")) as running:
        yield running


@pytest.fixture(scope="module")
async def refuse(mesh):
    """What came of each program with `--udp refuse`, what hairpin said, and how many datagrams each echo got."""
    async with echo("127.0.0.1") as (here, first), echo("::1") as (here_6, second), echo(own_address()) as (own, third):
        cases = [
            *wanted("far", FAR),
            *wanted("far by IPv6", FAR_6, BY_IPV6),
            *wanted("here", here, QUICK),
            *wanted("here by IPv6", here_6, BY_IPV6),
            *wanted("kept local", own),
        ]
        flags = ("--udp", "refuse", "--local", own)
        run, results = await driven(mesh, cases, *flags, python=sys.executable, wrapper=unprivileged())
        places = {"here": here, "here by IPv6": here_6, "kept local": own}
        return run, results, places, {"here": first.count, "here by IPv6": second.count, "kept local": third.count}


@pytest.fixture(scope="module")
async def passing(mesh):
    """The same with `--udp pass`, and a rule that refuses."""
    async with echo(own_address()) as (own, served):
        cases = [*wanted("passed", own), *wanted("ruled out", RULED)]
        flags = ("--udp", "pass", "--refuse", RULED)
        run, results = await driven(mesh, cases, *flags, python=sys.executable, wrapper=unprivileged())
        return run, results, {"passed": own}, {"passed": served.count}


def check_refused(outcome, each, column):
    result = outcome[1][f"{each}/{column}"]
    assert result["code"] == 1, result
    assert re.search(each.refused, result["output"]), result


def check_answer(outcome, each, column):
    result = outcome[1][f"{each}/{column}"]
    assert (result["code"], result["output"]) == (0, f"answer hello from {outcome[2][column]}\n"), result


@pytest.mark.parametrize("each", PROGRAMS, ids=str)
def test_what_goes_nowhere_is_refused(refuse, each):
    check_refused(refuse, each, "far")


@pytest.mark.parametrize("each", BY_IPV6, ids=str)
def test_what_goes_nowhere_by_ipv6_is_refused(refuse, each):
    check_refused(refuse, each, "far by IPv6")


@pytest.mark.parametrize("each", QUICK, ids=str)
def test_this_machine_itself_answers(refuse, each):
    check_answer(refuse, each, "here")


@pytest.mark.parametrize("each", BY_IPV6, ids=str)
def test_this_machine_itself_answers_by_ipv6(refuse, each):
    check_answer(refuse, each, "here by IPv6")


@pytest.mark.parametrize("each", PROGRAMS, ids=str)
def test_what_a_rule_keeps_local_answers(refuse, each):
    check_answer(refuse, each, "kept local")


@pytest.mark.parametrize("each", PROGRAMS, ids=str)
def test_what_is_passed_answers(passing, each):
    check_answer(passing, each, "passed")


@pytest.mark.parametrize("each", PROGRAMS, ids=str)
def test_what_a_rule_refuses_is_refused_though_others_are_passed(passing, each):
    check_refused(passing, each, "ruled out")


def test_each_datagram_arrived_once(refuse, passing):
    assert refuse[3] == {"here": len(QUICK), "here by IPv6": len(BY_IPV6), "kept local": len(PROGRAMS)}
    assert passing[3] == {"passed": len(PROGRAMS)}


def test_the_user_is_told_why(refuse, passing):
    for to in (FAR, FAR_6):
        assert any(f"UDP to {to} is refused: the mesh takes TCP alone" in line for line in refuse[0].errors)
    said = [line for line in passing[0].errors if RULED in line]
    assert said
    assert all(f"UDP to {RULED} is refused by --refuse {RULED}" in line for line in said), said
