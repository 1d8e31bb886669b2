"""ADS over real gRPC on loopback, without Envoy: who gets in, what a stream leaves behind, and who waits for whom."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator

import grpc
import pytest

from hairpin.certificates import CertificateAuthority
from tests.support.ads_client import (
    AdsClient,
    ads_client,
    channel_to,
    client_identity,
    open_stream,
    server_identity,
)
from tests.support.envoy import eventually
from tests.support.xds import (
    CDS,
    ECDS,
    EDS,
    ack,
    cluster,
    delta,
    endpoints,
    extension,
    nack,
    request,
    resource,
    snapshot,
)
from xds_server.cache.snapshot_cache import SnapshotCache
from xds_server.model.node import Node
from xds_server.model.snapshot import Snapshot
from xds_server.protocol.actions import Variant
from xds_server.server.ads import (
    AdsServer,
    ForbiddenProxyError,
    PeerIdentity,
    ProxyRegistry,
    UnauthenticatedProxyError,
    server_credentials,
)

ALICE = "spiffe://hairpin.local/ns/shop/sa/alice"


class Plane:
    """A control plane that serves whatever the test puts into its cache."""

    def __init__(self) -> None:
        self.authority = CertificateAuthority.create("a CA")
        self.identity = server_identity(self.authority)
        self.cache = SnapshotCache()
        self.registry = ProxyRegistry()
        self.seen: list[tuple[PeerIdentity, Node]] = []
        self.server = AdsServer(
            cache=self.cache,
            registry=self.registry,
            authorize=self.authorize,
            credentials=server_credentials(lambda: self.identity),
        )

    def authorize(self, identity: PeerIdentity, node: Node) -> str:
        self.seen.append((identity, node))
        if not identity.uris:
            raise UnauthenticatedProxyError("the certificate has no URI")
        if ALICE not in identity.uris:
            raise ForbiddenProxyError(f"{identity} may not be {node.id}")
        return "group"

    def alice(self, variant: Variant = Variant.SOTW):
        return ads_client(self.server.port, client_identity(self.authority, uris=(ALICE,)), variant=variant)


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    plane = Plane()
    async with plane.server:
        plane.server.ready.set()
        yield plane


async def subscribe(stream: AdsClient, now: Snapshot, *names: str) -> None:
    """Be in step with the extension configurations."""
    await stream.send(request(ECDS, *names))
    response = await stream.receive()
    assert response.version_info == now.version(ECDS)
    await stream.send(ack(ECDS, *names, nonce=int(response.nonce)))


@pytest.mark.parametrize("variant", Variant)
async def test_a_proxy_gets_its_snapshot(plane: Plane, variant: Variant):
    now = snapshot(cluster("a"))
    plane.cache.set("group", now)
    async with plane.alice(variant) as stream:
        await stream.send(request(CDS) if variant is Variant.SOTW else delta(CDS))
        response = await stream.receive()
        assert response.nonce == "1"
        assert len(response.resources) == 1
        await stream.send(ack(CDS, nonce=1) if variant is Variant.SOTW else delta(CDS, nonce=1))
        (proxy,) = await plane.registry.wait_synced("group", CDS, now.version(CDS))
    assert proxy.identity == PeerIdentity(uris=(ALICE,))
    assert (proxy.node.id, proxy.group, proxy.variant) == ("proxy", "group", variant)
    assert plane.seen == [(proxy.identity, proxy.node)]


class TestWhoGetsIn:
    async def test_another_identity_is_refused(self, plane: Plane):
        client = client_identity(plane.authority, uris=("spiffe://hairpin.local/ns/shop/sa/mallory",))
        async with ads_client(plane.server.port, client) as stream:
            await stream.send(request(CDS, node="alice's"))
            code, details = await stream.refusal()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert details == "spiffe://hairpin.local/ns/shop/sa/mallory may not be alice's"

    async def test_a_certificate_without_identity_is_refused(self, plane: Plane):
        async with ads_client(plane.server.port, client_identity(plane.authority, dns=("session",))) as stream:
            await stream.send(request(CDS))
            assert (await stream.refusal())[0] is grpc.StatusCode.UNAUTHENTICATED
        assert plane.seen[0][0] == PeerIdentity(dns=("session",))

    async def test_a_certificate_of_another_authority_is_refused(self, plane: Plane):
        other = client_identity(CertificateAuthority.create("b"), uris=(ALICE,), trusts=plane.authority.certificate)
        async with ads_client(plane.server.port, other) as stream:
            assert (await stream.refusal())[0] is grpc.StatusCode.UNAVAILABLE
        assert not plane.seen

    async def test_no_certificate_is_refused(self, plane: Plane):
        authority = plane.authority.certificate.encode()
        options = [("grpc.ssl_target_name_override", "xds-server"), ("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(authority)
        async with grpc.aio.secure_channel(f"127.0.0.1:{plane.server.port}", credentials, options) as channel:
            assert (await open_stream(channel).refusal())[0] is grpc.StatusCode.UNAVAILABLE
        assert not plane.seen

    async def test_nobody_before_the_server_is_ready(self, plane: Plane):
        plane.server.ready.clear()
        plane.cache.set("group", snapshot(cluster("a")))
        async with plane.alice() as stream:
            code, details = await stream.refusal()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "does not know everything yet" in details

    async def test_a_request_without_node_is_refused(self, plane: Plane):  # TestAdsBadId
        async with plane.alice() as stream:
            await stream.send(request(CDS, node=""))
            code, details = await stream.refusal()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "node.id" in details
        assert not plane.seen

    async def test_what_is_no_request_is_refused(self, plane: Plane):
        async with plane.alice() as stream:
            await stream.call.write(b"\xff\xff\xff")
            assert (await stream.refusal())[0] is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_taken_port_is_an_error(self, plane: Plane):
        second = AdsServer(
            cache=plane.cache,
            registry=plane.registry,
            authorize=plane.authorize,
            credentials=None,
            port=plane.server.port,
        )
        with pytest.raises(OSError, match=str(plane.server.port)):
            await second.start()


class TestRenewal:
    async def test_a_new_certificate_serves_the_next_handshake(self, plane: Plane):
        client = client_identity(plane.authority, uris=(ALICE,))
        plane.cache.set("group", snapshot(cluster("a")))
        async with channel_to(plane.server.port, client) as before:
            first = open_stream(before)
            await (await first.send(request(CDS))).receive()
            plane.identity = server_identity(plane.authority, name="renewed")
            async with channel_to(plane.server.port, client, name="renewed") as after:
                await (await open_stream(after).send(request(CDS))).receive()
            # The stream from before goes on.
            await first.send(ack(CDS, nonce=1))
            plane.cache.set("group", snapshot(cluster("a", 2)))
            assert (await first.receive()).nonce == "2"

    async def test_one_that_cannot_be_loaded_leaves_the_old(self, plane: Plane, caplog: pytest.LogCaptureFixture):
        del plane.identity
        plane.cache.set("group", snapshot(cluster("a")))
        with caplog.at_level(logging.ERROR):
            async with plane.alice() as stream:
                await (await stream.send(request(CDS))).receive()
        assert "the one before it is used" in caplog.text


class TestManyStreams:
    async def test_a_slow_reader_does_not_delay_others(self, plane: Plane):  # ours
        """Megabytes that nobody reads: the slow stream's writer waits, all else goes on."""
        plane.cache.set("group", snapshot(extension("e")))
        async with plane.alice() as slow, plane.alice() as quick:
            await slow.send(request(ECDS, "big"))
            await subscribe(quick, snapshot(extension("e")), "e")
            for round_ in range(2, 20):
                now = snapshot(extension("e", round_), resource(ECDS, "big", "x" * 3_000_000 + str(round_)))
                plane.cache.set("group", now)
                response = await quick.receive()
                assert response.version_info == now.version(ECDS)
                await quick.send(ack(ECDS, "e", nonce=int(response.nonce)))
            # It was sent one response, not one for each round.
            types = [p.types[ECDS] for p in plane.registry.proxies() if not p.types[ECDS].version_acked]
            assert len(types) == 1

    async def test_one_proxys_refusal_is_its_own(self, plane: Plane):
        now = snapshot(extension("e"))
        plane.cache.set("group", now)
        async with plane.alice() as good, plane.alice() as bad:
            await subscribe(good, now, "e")
            await bad.send(request(ECDS, "e"))
            await bad.receive()
            await bad.send(nack(ECDS, "e", nonce=1, error="unknown extension"))
            # Two connections: the refusal may be read before the other's acknowledgement.
            proxies = await plane.registry.wait_for(
                lambda all_: (
                    any(p.types and p.types[ECDS].nack for p in all_)
                    and any(p.types and p.types[ECDS].version_synced for p in all_)
                )
            )
            (refusal,) = [p.types[ECDS].nack for p in proxies if p.types[ECDS].nack]
            assert refusal is not None
            assert (refusal.version, refusal.reason) == (now.version(ECDS), "unknown extension")
            assert sorted(p.types[ECDS].version_synced for p in proxies) == ["", now.version(ECDS)]
            mended = snapshot(extension("e", "mended"))
            plane.cache.set("group", mended)
            for stream in (good, bad):
                response = await stream.receive()
                await stream.send(ack(ECDS, "e", nonce=int(response.nonce)))
            proxies = await plane.registry.wait_synced("group", ECDS, mended.version(ECDS), proxies=2)
            assert [p.types[ECDS].nack for p in proxies] == [None, None]

    async def test_a_response_is_encoded_once_for_all(self, plane: Plane):
        now = snapshot(extension("e"))
        plane.cache.set("group", now)
        async with plane.alice() as one, plane.alice() as two, plane.alice() as three:
            for stream in (one, two, three):
                await subscribe(stream, now, "e")
        assert (plane.cache.responses.encoded, plane.cache.responses.served) == (1, 3)

    async def test_a_storm_of_reconnects(self, plane: Plane):  # ours
        now = snapshot(extension("e"))
        plane.cache.set("group", now)
        client = client_identity(plane.authority, uris=(ALICE,))

        async def proxy() -> None:
            async with channel_to(plane.server.port, client) as channel:
                for _ in range(5):
                    stream = open_stream(channel)
                    await subscribe(stream, now, "e")
                    stream.call.cancel()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(proxy())
        await eventually(lambda: not len(plane.registry), what="all streams gone")
        assert plane.cache.watches("group") == 0

    async def test_two_groups_do_not_hear_of_each_other(self, plane: Plane):  # TestAdsPushScoping
        now = snapshot(extension("e"))
        plane.cache.set("group", now)
        async with plane.alice() as stream:
            await subscribe(stream, now, "e")
            plane.cache.set("another", snapshot(extension("e", 2)))
            later = snapshot(extension("e", 3))
            plane.cache.set("group", later)
            assert (await stream.receive()).version_info == later.version(ECDS)


class TestTheEnd:
    @pytest.mark.parametrize("how", ["cancel", "half-close", "disconnect"])
    async def test_a_closed_stream_leaves_nothing_behind(self, plane: Plane, how: str):  # TestCancellations
        plane.cache.set("group", snapshot(cluster("a")))
        async with channel_to(plane.server.port, client_identity(plane.authority, uris=(ALICE,))) as channel:
            stream = open_stream(channel)
            await (await stream.send(request(CDS))).receive()
            assert len(plane.registry) == 1
            (runner,) = map(weakref.ref, plane.server._runners)
            if how == "cancel":
                stream.call.cancel()
            elif how == "half-close":
                await stream.call.done_writing()
                assert (await stream.refusal())[0] is grpc.StatusCode.OK
            else:
                await channel.close()
        await eventually(lambda: not len(plane.registry), what="the proxy gone")
        assert plane.cache.watches("group") == 0
        await eventually(lambda: gc.collect() is not None and runner() is None, what="the runner collected")

    async def test_cut_off_in_the_middle_of_a_large_response(self, plane: Plane):
        plane.cache.set("group", snapshot(*(resource(ECDS, str(n), "x" * 500_000) for n in range(6))))
        async with channel_to(plane.server.port, client_identity(plane.authority, uris=(ALICE,))) as channel:
            stream = open_stream(channel)
            await stream.send(request(ECDS, *map(str, range(6))))
            await plane.registry.wait_for(lambda all_: any(ECDS in p.types for p in all_))
        await eventually(lambda: not len(plane.registry), what="the proxy gone")
        assert plane.cache.watches("group") == 0

    async def test_shutdown_ends_streams_with_a_status(self, plane: Plane, caplog, capfd):  # TestServerShutdown
        plane.cache.set("group", snapshot(cluster("a"), endpoints("a")))
        async with plane.alice() as one, plane.alice(Variant.DELTA) as two:
            await (await one.send(request(CDS))).receive()
            await (await two.send(delta(EDS, "a"))).receive()
            await plane.server.stop()
            for stream in (one, two):
                code, details = await stream.refusal()
                assert code is grpc.StatusCode.UNAVAILABLE
                assert details == "the control plane is shutting down"
        assert not len(plane.registry)
        assert not plane.server._runners
        assert "Traceback" not in caplog.text + capfd.readouterr().err

    async def test_an_error_in_authorize_is_that_streams_alone(self, plane: Plane, caplog):  # TestCallbackError
        plane.cache.set("group", snapshot(cluster("a")))
        async with plane.alice() as healthy:
            await (await healthy.send(request(CDS))).receive()
            authorize, plane.server._authorize = plane.server._authorize, lambda *_: {}["no such"]
            async with plane.alice() as stream:
                await stream.send(request(CDS))
                assert (await stream.refusal())[0] is grpc.StatusCode.UNKNOWN
            plane.server._authorize = authorize
            await healthy.send(ack(CDS, nonce=1))
            plane.cache.set("group", snapshot(cluster("a", 2)))
            assert (await healthy.receive()).nonce == "2"
        assert "no such" in caplog.text
