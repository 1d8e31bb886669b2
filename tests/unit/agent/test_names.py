"""What laptops are told of names and destinations."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest

from agent.judge import Judge
from agent.names import Names
from agent.resolve import Answer


def names(answer, virtual=()):
    async def resolve(host):
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return Answer(tuple(map(ipaddress.ip_address, answer)), f"{host}.shop.svc.cluster.local.")

    return Names(Judge(resolve=resolve, timeout=0.05), frozenset(virtual))


async def test_a_name_has_its_addresses_once_and_its_full_name():
    status, told = await names(["10.0.0.2", "10.0.0.1", "10.0.0.2"]).name("Inventory")
    assert (status, told) == (
        200,
        {"addresses": ["10.0.0.2", "10.0.0.1"], "name": "inventory.shop.svc.cluster.local"},
    )


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (socket.gaierror(socket.EAI_NONAME, "?"), 404, "there is no inventory"),
        (UnicodeError("label too long"), 404, "inventory is no name"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), 503, "Temporary failure"),
        (OSError("boom"), 503, "boom"),
        (None, 503, "no answer in time"),
    ],
)
async def test_no_such_name_and_no_answer_are_told_apart(error, status, word):
    found, told = await names(error).name("inventory")
    assert found == status
    assert word in told["reason"]
    assert "addresses" not in told


async def test_a_name_without_addresses_exists():
    error = socket.gaierror(socket.EAI_NODATA, "?")
    assert await names(error).name("Inventory.") == (200, {"addresses": [], "name": "inventory"})


async def test_a_virtual_name_is_looked_up_by_nobody():
    virtual = names(OSError("not asked"), ["inventory"])
    assert await virtual.name("INVENTORY.") == (200, {"addresses": [], "name": "inventory", "virtual": True})
    assert await virtual.destination("Inventory:80", "alice") == (200, {"address": "", "virtual": True})
    assert (await virtual.name("inventory.other"))[0] == 503


async def test_a_destination_is_what_the_judge_says():
    assert await names(["10.0.0.2"]).destination("inventory:80", "alice") == (200, {"address": "10.0.0.2:80"})
    status, told = await names(["127.0.0.1"]).destination("inventory:80", "alice")
    assert (status, "loopback" in told["reason"]) == (403, True)
    assert (await names(["10.0.0.2"]).destination("a b", "alice"))[0] == 400
