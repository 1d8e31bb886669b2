from __future__ import annotations

import asyncio
import json
from contextlib import AbstractContextManager

from tests.support.xds import CDS, ECDS
from xds_server.model.node import Node
from xds_server.protocol.actions import RecordAck, RecordNack, RecordStale, RecordSynced, SendResponse, Variant
from xds_server.server.registry import PeerIdentity, Proxy, ProxyRegistry


def connect(registry: ProxyRegistry, name: str = "proxy", group: str = "g") -> AbstractContextManager[Proxy]:
    return registry.connected(
        node=Node(name),
        identity=PeerIdentity(uris=("spiffe://a/b",)),
        group=group,
        variant=Variant.DELTA,
        peer="ipv4:x",
    )


def sent(version: str, nonce: str = "1") -> SendResponse:
    return SendResponse(variant=Variant.DELTA, type_url=ECDS, version=version, nonce=nonce, resources=())


def acked(version: str, nonce: str = "1") -> RecordAck:
    return RecordAck(type_url=ECDS, version=version, nonce=nonce)


def synced(version: str) -> RecordSynced:
    return RecordSynced(type_url=ECDS, version=version)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_proxy_is_listed_as_long_as_it_is_connected():
    registry = ProxyRegistry()
    with connect(registry, "one"), connect(registry, "two", group="h"):
        assert [p.node.id for p in registry.proxies()] == ["one", "two"]
        assert [p.node.id for p in registry.proxies("h")] == ["two"]
    assert len(registry) == 0


def test_two_streams_of_one_node_are_two_proxies():
    registry = ProxyRegistry()
    with connect(registry):
        with connect(registry):
            assert len(registry) == 2
        assert len(registry) == 1


def test_what_happened_to_a_type():
    registry = ProxyRegistry()
    with connect(registry) as proxy:
        proxy.note(sent("v1"))
        proxy.note(acked("v1"))
        proxy.note(synced("v1"))
        proxy.note(sent("v2"))
        before = proxy.status.types[ECDS]
        assert (before.version_sent, before.version_acked, before.version_synced) == ("v2", "v1", "")
        proxy.note(RecordNack(type_url=ECDS, version="v2", nonce="2", reason="no such filter"))
        proxy.note(RecordStale(type_url=ECDS, nonce="1"))
        refused = proxy.status.types[ECDS]
        assert refused.nack is not None
        assert (refused.nack.version, refused.nack.reason, refused.stale) == ("v2", "no such filter", 1)
        proxy.note(sent("v3"))
        proxy.note(acked("v3"))  # another resource of the type: the refused one is still out
        assert proxy.status.types[ECDS].nack is not None
        proxy.note(synced("v3"))
        assert proxy.status.types[ECDS].nack is None
        assert before.version_sent == "v2"  # a status stays as it was


def test_json():
    registry = ProxyRegistry()
    with connect(registry) as proxy:
        proxy.note(sent("v1"))
        proxy.note(RecordNack(type_url=ECDS, version="v1", nonce="1", reason="bad"))
        made = json.loads(json.dumps(proxy.status.to_json()))
    assert made["node"] == {"id": "proxy", "cluster": ""}
    assert made["identity"] == {"uris": ["spiffe://a/b"], "dns": []}
    assert made["types"]["TypedExtensionConfig"]["nack"]["reason"] == "bad"
    assert made["variant"] == "delta"


async def test_wait_synced_waits_for_every_proxy_of_the_group_that_asks_for_the_type():
    registry = ProxyRegistry()
    with connect(registry) as one, connect(registry) as two, connect(registry) as idle, connect(registry, group="h"):
        one.note(synced("v1"))
        two.note(sent("v1"))
        idle.note(RecordSynced(type_url=CDS, version="x"))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(registry.wait_synced("g", ECDS, "v1", proxies=2))
            await settle()
            assert not waiting.done()
            two.note(synced("v1"))
        assert len(waiting.result()) == 2


async def test_wait_synced_waits_for_so_many():
    registry = ProxyRegistry()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(registry.wait_synced("g", ECDS, "v1"))
        await settle()
        assert not waiting.done()
        with connect(registry) as proxy:
            proxy.note(synced("v1"))
            await settle()
        assert waiting.done()


async def test_wait_synced_does_not_wait_for_one_that_left():
    registry = ProxyRegistry()
    with connect(registry) as stays:
        stays.note(synced("v1"))
        async with asyncio.TaskGroup() as tasks:
            with connect(registry) as leaves:
                leaves.note(sent("v1"))
                waiting = tasks.create_task(registry.wait_synced("g", ECDS, "v1"))
                await settle()
                assert not waiting.done()
        assert len(waiting.result()) == 1


async def test_wait_for_looks_after_each_change_and_leaves_nothing():
    registry = ProxyRegistry()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(registry.wait_for(lambda proxies: len(proxies) == 1))
        cancelled = tasks.create_task(registry.wait_for(lambda proxies: len(proxies) == 9))
        await settle()
        with connect(registry):
            await settle()
        assert waiting.done()
        cancelled.cancel()
    assert not registry._waiting
