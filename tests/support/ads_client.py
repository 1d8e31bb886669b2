"""A discovery client over real gRPC that does what a test tells it, and certificates for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import grpc

from hairpin.certificates import CertificateAuthority, new_key_and_request
from xds_server.protocol.actions import Variant
from xds_server.protocol.frames import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds_server.server.ads import SERVICE
from xds_server.server.credentials import ServerIdentity

HOUR = timedelta(hours=1)
SERVER_NAME = "xds-server"
METHODS = {Variant.SOTW: "StreamAggregatedResources", Variant.DELTA: "DeltaAggregatedResources"}
RESPONSES: dict[Variant, Any] = {Variant.SOTW: DiscoveryResponse, Variant.DELTA: DeltaDiscoveryResponse}


@dataclass(frozen=True)
class Client:
    """What a proxy needs for mutual TLS, PEM."""

    key: str
    chain: str
    authority: str


def server_identity(authority: CertificateAuthority, *, name: str = SERVER_NAME) -> ServerIdentity:
    key, request = new_key_and_request()
    chain = authority.sign(request, dns=(name, "localhost"), lifetime=HOUR).chain
    return ServerIdentity(key=key, chain=chain, authorities=authority.certificate)


def client_identity(
    authority: CertificateAuthority, *, uris: tuple[str, ...] = (), dns: tuple[str, ...] = (), trusts: str = ""
) -> Client:
    key, request = new_key_and_request()
    chain = authority.sign(request, uris=uris, dns=dns, lifetime=HOUR).chain
    return Client(key=key, chain=chain, authority=trusts or authority.certificate)


class AdsClient:
    """One aggregated stream."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes], variant: Variant) -> None:
        self.call = call
        self._variant = variant

    async def send(self, request: DiscoveryRequest | DeltaDiscoveryRequest) -> Self:
        await self.call.write(request.SerializeToString())
        return self

    async def receive(self) -> Any:
        """The next response, parsed; raises grpc.aio.AioRpcError where the stream was refused."""
        async with asyncio.timeout(20):
            encoded = await self.call.read()
        assert isinstance(encoded, bytes), "the stream has ended"
        return RESPONSES[self._variant].FromString(encoded)

    async def refusal(self) -> tuple[grpc.StatusCode, str]:
        async with asyncio.timeout(20):
            return await self.call.code(), await self.call.details() or ""


@contextlib.asynccontextmanager
async def channel_to(
    port: int, client: Client | None = None, *, name: str = SERVER_NAME
) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", name)]
    if client is None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options[:1])
    else:
        credentials = grpc.ssl_channel_credentials(
            client.authority.encode(), client.key.encode() or None, client.chain.encode() or None
        )
        channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
    async with channel:
        yield channel


def open_stream(channel: grpc.aio.Channel, variant: Variant = Variant.SOTW) -> AdsClient:
    return AdsClient(channel.stream_stream(f"/{SERVICE}/{METHODS[variant]}")(), variant)


@contextlib.asynccontextmanager
async def ads_client(
    port: int, client: Client | None = None, *, variant: Variant = Variant.SOTW
) -> AsyncIterator[AdsClient]:
    """A channel with one stream; both are gone after the context."""
    async with channel_to(port, client) as channel:
        stream = open_stream(channel, variant)
        try:
            yield stream
        finally:
            stream.call.cancel()
