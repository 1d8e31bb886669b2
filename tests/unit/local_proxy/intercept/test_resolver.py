import asyncio
import contextlib
from collections import Counter
from ipaddress import ip_address

import pytest

from local_proxy.intercept import resolver
from local_proxy.intercept.dns_message import Code, Type, address_record, addresses, answer, read_query
from local_proxy.intercept.names import VIRTUAL, Names
from local_proxy.intercept.resolver import CANNOT_SAY, NO_SUCH_NAME, Meaning, Resolver
from local_proxy.rule_text import parse_rule
from local_proxy.rules import Action, Rules
from tests.unit.local_proxy.intercept.test_dns_message import question


def meaning(*texts):
    return Meaning(tuple(map(ip_address, texts)))


MESH = {
    "inventory": meaning("10.1.2.3"),
    "inventory.shop": meaning("10.1.2.3"),
    "inventory.shop.svc.cluster.local": meaning("10.1.2.3"),
    "both.shop": meaning("10.1.2.4", "2001:db8::4"),
    "six.shop": meaning("2001:db8::6"),
    "catalog": Meaning(virtual=True),
    "broken": CANNOT_SAY,
    "wiki.corp.example": meaning("10.9.9.9"),
    "inventory.corp.example": meaning("10.8.8.8"),
}
LAPTOP = {"db.corp": meaning("192.168.7.7")}


class World:
    """A resolver, and what it asked."""

    def __init__(self, tasks, *rules, search=("corp.example", "svc.cluster.local")):
        self.names = Names()
        self.asked = Counter()
        self.forwarded = []
        user = tuple(parse_rule(action, text) for action, text in rules)
        self.resolver = Resolver(
            tasks, Rules(user), self.names, ask=self.ask, forward=self.forward, search=lambda: search
        )
        self.hold = asyncio.Event()
        self.hold.set()

    async def ask(self, name):
        self.asked[name] += 1
        await self.hold.wait()
        return MESH.get(name, NO_SUCH_NAME)

    async def forward(self, message, stream):
        query = read_query(message)
        self.forwarded.append((query.name, stream))
        found = LAPTOP.get(query.name)
        if found is None:
            return None
        return answer(query, Code.NO_ERROR, map(address_record, found.addresses), seconds=60, limit=512)

    async def look_up(self, name, kind=Type.A, **options):
        """Code, and addresses as text."""
        reply = await self.resolver.answer(question(name, kind), **options)
        return Code(reply[3] & 15), [str(address) for address in addresses(reply)]


@contextlib.asynccontextmanager
async def world(*rules, **options):
    async with asyncio.TaskGroup() as tasks:
        yield World(tasks, *rules, **options)


async def test_names_of_the_mesh_and_what_connections_to_them_are_called():
    async with world() as it:
        assert await it.look_up("inventory") == (Code.NO_ERROR, ["10.1.2.3"])
        assert await it.look_up("inventory", Type.AAAA) == (Code.NO_ERROR, [])
        assert it.names.of(ip_address("10.1.2.3")) == ("inventory",)
        assert it.asked == {"inventory": 1}


async def test_both_families_are_answered_with_ipv4_alone():
    async with world() as it:
        assert await it.look_up("both.shop", Type.AAAA) == (Code.NO_ERROR, [])
        assert await it.look_up("both.shop") == (Code.NO_ERROR, ["10.1.2.4"])
        assert await it.look_up("six.shop", Type.AAAA) == (Code.NO_ERROR, ["2001:db8::6"])
        assert await it.look_up("six.shop") == (Code.NO_ERROR, [])


async def test_a_name_without_an_address_gets_one_that_stands_for_it():
    async with world() as it:
        code, (address,) = await it.look_up("catalog")
        assert code is Code.NO_ERROR
        assert ip_address(address) in VIRTUAL
        assert it.names.meant(ip_address(address)) == "catalog"
        assert await it.look_up("catalog") == (code, [address])


async def test_unknown_and_unanswered_are_different():
    async with world() as it:
        assert await it.look_up("nowhere") == (Code.NO_SUCH_NAME, [])
        assert await it.look_up("nowhere", Type.AAAA) == (Code.NO_SUCH_NAME, [])
        assert it.asked["nowhere"] == 1
        for _ in range(2):
            assert await it.look_up("broken") == (Code.SERVER_FAILURE, [])
        assert it.asked["broken"] == 2, "a failure is not kept"


async def test_an_agent_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(resolver, "ANSWER_SECONDS", 0.01)
    async with world() as it:
        it.hold.clear()
        assert await it.look_up("inventory") == (Code.SERVER_FAILURE, [])


async def test_several_who_ask_at_once_get_one_answer_though_the_first_gives_up():
    async with world() as it, asyncio.TaskGroup() as tasks:
        it.hold.clear()
        first, *others = [tasks.create_task(it.look_up("inventory")) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        it.hold.set()
        assert {(await other)[0] for other in others} == {Code.NO_ERROR}
        assert it.asked == {"inventory": 1}


async def test_the_search_list_of_this_machine_does_not_hide_the_mesh():
    """A resolver here asks the longer name first; the mesh even knows another one of that name."""
    async with world() as it:
        assert await it.look_up("inventory.corp.example") == (Code.NO_SUCH_NAME, [])
        assert await it.look_up("inventory") == (Code.NO_ERROR, ["10.1.2.3"])
        assert it.asked["inventory"] == 1


async def test_a_whole_name_below_the_search_list_is_itself():
    async with world() as it:
        assert await it.look_up("wiki.corp.example") == (Code.NO_ERROR, ["10.9.9.9"])
        # This machine may search in the cluster's domains.
        assert await it.look_up("inventory.shop.svc.cluster.local") == (Code.NO_ERROR, ["10.1.2.3"])


async def test_a_slow_longer_name_does_not_delay(monkeypatch):
    monkeypatch.setattr(resolver, "STRAGGLER_SECONDS", 0.01)
    async with world() as it:
        await it.look_up("inventory")
        it.hold.clear()
        assert await it.look_up("inventory.corp.example") == (Code.NO_SUCH_NAME, [])
        it.hold.set()


async def test_what_a_rule_keeps_local_is_asked_of_this_machines_resolver():
    async with world((Action.LOCAL, "*.corp")) as it:
        assert await it.look_up("db.corp") == (Code.NO_ERROR, ["192.168.7.7"])
        assert it.names.of(ip_address("192.168.7.7")) == ("db.corp",)
        assert await it.look_up("db.corp", 16, stream=True) == (Code.NO_ERROR, ["192.168.7.7"])
        assert await it.look_up("gone.corp") == (Code.SERVER_FAILURE, []), "no name server answers"
        assert it.forwarded == [("db.corp", False), ("db.corp", True), ("gone.corp", False)]
        assert not it.asked


async def test_a_refused_name_gets_an_address_so_that_its_connect_can_say_why():
    async with world((Action.REFUSE, "*.prod")) as it:
        code, (address,) = await it.look_up("payments.prod")
        assert code is Code.NO_ERROR
        assert it.names.of(ip_address(address)) == ("payments.prod",)
        assert not it.asked


async def test_localhost_is_this_machine():
    async with world() as it:
        assert await it.look_up("localhost") == (Code.NO_ERROR, ["127.0.0.1"])
        assert await it.look_up("a.localhost", Type.AAAA) == (Code.NO_ERROR, ["::1"])


@pytest.mark.parametrize(
    ("name", "kind", "code", "forwarded"),
    [
        ("inventory", Type.HTTPS, Code.NO_ERROR, False),
        ("inventory", 16, Code.NOT_IMPLEMENTED, False),
        ("_http._tcp.inventory.shop.svc.cluster.local", 33, Code.NOT_IMPLEMENTED, False),
        ("_mongodb._tcp.db.example", 33, Code.SERVER_FAILURE, True),
        ("example", Type.ANY, Code.NOT_IMPLEMENTED, False),
        ("9.9.9.10.in-addr.arpa", Type.PTR, Code.NO_SUCH_NAME, False),
    ],
)
async def test_other_types(name, kind, code, forwarded):
    async with world() as it:
        assert await it.look_up(name, kind) == (code, [])
        assert bool(it.forwarded) is forwarded
        assert not it.asked


async def test_an_address_that_was_given_out_has_its_name():
    async with world() as it:
        await it.look_up("inventory.shop")
        reply = await it.resolver.answer(question("3.2.1.10.in-addr.arpa", Type.PTR))
        assert reply.endswith(b"\x09inventory\4shop\0")


async def test_junk_is_not_answered_or_refused():
    async with world() as it:
        assert await it.resolver.answer(b"junk") is None
        assert (await it.resolver.answer(question()[:-2]))[3] & 15 == Code.FORMAT_ERROR
