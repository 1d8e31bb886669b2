from __future__ import annotations

import asyncio
import ipaddress
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.judge import Judge, forbidden

BAD = st.sampled_from(["127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"]).flatmap(
    lambda network: st.ip_addresses(v=4, network=network)
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
    also = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8"))
    assert forbidden(ipaddress.ip_address("10.1.2.3"), also) == "is in 10.1.0.0/16"
    assert forbidden(ipaddress.ip_address("::ffff:10.1.2.3"), also)
    assert forbidden(ipaddress.ip_address("fd12::1"), also)
    assert not forbidden(ipaddress.ip_address("10.2.2.3"), also)


def judge_of(*addresses: str, timeout: float = 5.0) -> Judge:
    async def resolve(host):
        return [ipaddress.ip_address(address) for address in addresses]

    return Judge(resolve=resolve, timeout=timeout)


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
    assert (await Judge(resolve=never, timeout=0.01).judge("a:80")).status == HTTPStatus.BAD_GATEWAY
