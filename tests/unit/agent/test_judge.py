from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.addresses import forbidden, networks_of, own_addresses
from agent.judge import Judge
from agent.policies import Policies
from agent.resolve import Answer, ForbiddenHosts, system_resolve

ISTIOS = ipaddress.ip_network("240.240.0.0/16")
BAD = (
    st.sampled_from(["127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"])
    .flatmap(lambda network: st.ip_addresses(v=4, network=network))
    .filter(lambda address: address not in ISTIOS)
)


def disguises(address: ipaddress.IPv4Address) -> list[ipaddress.IPv6Address]:
    """Every IPv6 address that means this IPv4 one somewhere."""
    number = int(address)
    return [
        ipaddress.IPv6Address(number | 0xFFFF << 32),
        ipaddress.IPv6Address(number | 0x64FF9B << 96),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
        ipaddress.IPv6Address(0x20010000 << 96 | number ^ 0xFFFFFFFF),
        ipaddress.IPv6Address(number),
    ]


@given(BAD)
def test_an_address_is_forbidden_in_every_disguise(address):
    assert forbidden(address)
    assert all(forbidden(disguise) for disguise in disguises(address))


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_private_addresses_are_the_clusters_own_and_allowed(address):
    assert not forbidden(address)
    assert not forbidden(disguises(address)[0])


def test_networks_of_the_settings_are_forbidden_too():
    also = networks_of(["10.1.0.0/16", "fd00::/8"])
    assert forbidden(ipaddress.ip_address("10.1.2.3"), also) == "is in 10.1.0.0/16"
    assert forbidden(ipaddress.ip_address("::ffff:10.1.2.3"), also)
    assert forbidden(ipaddress.ip_address("fd12::1"), also)
    assert not forbidden(ipaddress.ip_address("10.2.2.3"), also)


def test_what_istio_gives_external_services_is_the_sidecars():
    assert not forbidden(ipaddress.ip_address("240.240.0.5"))
    assert forbidden(ipaddress.ip_address("240.241.0.5"))


def test_every_address_of_this_machine_is_its_own():
    own = own_addresses()
    assert ipaddress.ip_network("127.0.0.1") in own
    assert forbidden(ipaddress.ip_address("127.0.0.1"), own)


def answering(*addresses: str, name: str = ""):
    async def resolve(host):
        return Answer(tuple(map(ipaddress.ip_address, addresses)), name)

    return resolve


def judge_of(*addresses: str, name: str = "", **more) -> Judge:
    return Judge(resolve=answering(*addresses, name=name), **more)


@pytest.mark.parametrize(
    ("authority", "address"),
    [("a", "10.0.0.1:80"), ("a:8443", "10.0.0.1:8443"), ("a.b.c.:1", "10.0.0.1:1"), ("[fd12::1]:5", "10.0.0.1:5")],
)
async def test_the_answer_is_the_address_to_connect_to(authority, address):
    verdict = await judge_of("10.0.0.1", "10.0.0.2").judge(authority)
    assert (verdict.status, verdict.address) == (HTTPStatus.OK, address)


async def test_an_ipv6_address_is_in_brackets():
    assert (await judge_of("fd12::1").judge("a:443")).address == "[fd12::1]:443"


@pytest.mark.parametrize(
    "authority", ["", ":80", "a:0", "a:65536", "a:b", "a b", "u@a:80", "[::1", "::1", "a:1:2", "[a]:1"]
)
async def test_what_is_no_authority_is_refused_before_any_look_up(authority):
    async def resolve(host):
        raise AssertionError(host)

    assert (await Judge(resolve=resolve).judge(authority)).status == HTTPStatus.BAD_REQUEST


async def test_one_forbidden_address_among_several_refuses_the_name():
    verdict = await judge_of("10.0.0.1", "127.0.0.1").judge("a:80")
    assert verdict.status == HTTPStatus.FORBIDDEN
    assert verdict.reason == "a is 127.0.0.1, which is the agent's own loopback"


async def test_a_name_without_an_answer_is_refused():
    async def never(host):
        await asyncio.Event().wait()

    assert (await judge_of().judge("a:80")).status == HTTPStatus.BAD_GATEWAY
    assert (await judge_of().judge("a:80")).reason == "a has no address"
    assert (await Judge(resolve=never, timeout=0.01).judge("a:80")).status == HTTPStatus.BAD_GATEWAY


async def test_the_agents_own_service_is_refused_by_every_name_and_address():
    own = ForbiddenHosts(names=("hairpin-agent", "other"), resolve=answering("10.96.0.9", "fd00::9"))
    for address in ("10.96.0.9", "fd00::9", "::ffff:10.96.0.9"):
        judge = judge_of(address, forbidden_hosts=own)
        verdict = await judge.judge("disguise:8080")
        assert verdict.status == HTTPStatus.FORBIDDEN, address
    assert (await judge_of("10.96.0.10", forbidden_hosts=own).judge("a")).status == HTTPStatus.OK


class Flaky:
    """A name server that fails when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: OSError | None = None

    async def __call__(self, host):
        self.asked += 1
        if self.error:
            raise self.error
        return Answer((ipaddress.ip_address("10.96.0.9"),))


async def test_a_forbidden_name_that_can_not_be_looked_up_closes_the_egress_until_it_can():
    flaky = Flaky()
    flaky.error = socket.gaierror(socket.EAI_AGAIN, "try again")
    hosts = ForbiddenHosts(names=("hairpin-agent",), resolve=flaky, kept_seconds=0)
    judge = judge_of("10.96.0.9", forbidden_hosts=hosts)
    assert (await judge.judge("a")).status == HTTPStatus.SERVICE_UNAVAILABLE
    flaky.error = None
    assert (await judge.judge("a")).status == HTTPStatus.FORBIDDEN
    flaky.error = socket.gaierror(socket.EAI_AGAIN, "try again")
    assert (await judge.judge("a")).status == HTTPStatus.FORBIDDEN  # what it was before
    flaky.error = socket.gaierror(socket.EAI_NONAME, "no such name")
    assert (await judge.judge("a")).status == HTTPStatus.OK


async def test_forbidden_names_are_not_looked_up_for_each_connection():
    flaky = Flaky()
    judge = judge_of("10.0.0.1", forbidden_hosts=ForbiddenHosts(names=("hairpin-agent",), resolve=flaky))
    for _ in range(5):
        assert (await judge.judge("a")).status == HTTPStatus.OK
    assert flaky.asked == 1


def policies(sessions: object, **more: object) -> Policies:
    made = Policies(patience=0.01)
    made.take(json.dumps({"sessions": sessions, **more}).encode())
    return made


async def test_a_sessions_rules_are_its_own():
    rules = policies(
        {
            "alice.shop": {"default": "Allow", "rules": [{"number": 1, "action": "Deny", "hosts": ["db.prod"]}]},
            "bob.shop": {"default": "Deny", "rules": [{"number": 2, "action": "Allow", "cidrs": ["10.0.0.0/8"]}]},
        }
    )
    inside = judge_of("10.0.0.1", policies=rules)
    assert (await inside.judge("db.prod:5432", "alice.shop")).status == HTTPStatus.FORBIDDEN
    assert (await inside.judge("db.prod:5432", "bob.shop")).status == HTTPStatus.OK
    assert (await inside.judge("db.prod:5432", "carol.shop")).status == HTTPStatus.SERVICE_UNAVAILABLE
    assert (await inside.judge("db.prod:5432", "")).status == HTTPStatus.SERVICE_UNAVAILABLE
    refused = await judge_of("192.0.2.1", policies=rules).judge("x:1", "bob.shop")
    assert refused.status == HTTPStatus.FORBIDDEN
    assert refused.reason == "x:1 is in no rule of the egress policy, whose default is Deny"


async def test_a_short_name_is_judged_by_its_full_one():
    deny = policies({"a": {"default": "Allow", "rules": [{"action": "Deny", "hosts": ["*.prod.svc.cluster.local"]}]}})
    judge = judge_of("10.0.0.1", name="db.prod.svc.cluster.local", policies=deny)
    assert (await judge.judge("db.prod", "a")).status == HTTPStatus.FORBIDDEN


async def test_no_rule_allows_what_is_forbidden_to_all():
    allow = policies(
        {"a": {"default": "Allow", "rules": [{"action": "Allow", "cidrs": ["0.0.0.0/0"]}]}}, forbidden=["10.9.0.1"]
    )
    for address in ("169.254.169.254", "10.9.0.1", "::ffff:10.9.0.1"):
        assert (await judge_of(address, policies=allow).judge("a", "a")).status == HTTPStatus.FORBIDDEN, address
    assert (await judge_of("10.9.0.2", policies=allow).judge("a", "a")).status == HTTPStatus.OK


async def test_before_the_control_plane_has_spoken_only_refusals_are_certain():
    nothing = Policies(patience=0.01)
    verdict = await judge_of("10.0.0.1", policies=nothing).judge("a", "a")
    assert (verdict.status, verdict.address) == (HTTPStatus.SERVICE_UNAVAILABLE, "")
    assert "has not said yet" in verdict.reason
    assert (await judge_of("127.0.0.1", policies=nothing).judge("a", "a")).status == HTTPStatus.FORBIDDEN


async def test_the_system_knows_the_full_name():
    answer = await system_resolve("localhost")
    assert answer.addresses
    assert answer.name
    assert (await system_resolve("10.0.0.1")).addresses == (ipaddress.ip_address("10.0.0.1"),)
