"""AdsServer: Envoy's aggregated discovery service over gRPC, both variants, with mutual TLS.

Handlers get and give bytes: responses are encoded once for all streams, so gRPC has nothing to serialize.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc

from xds_server.cache.snapshot_cache import SnapshotCache
from xds_server.protocol.delta import DeltaStream
from xds_server.protocol.frames import DeltaDiscoveryRequest, DiscoveryRequest
from xds_server.protocol.sotw import SotwStream
from xds_server.protocol.stream import DiscoveryStream
from xds_server.server.credentials import ServerIdentity, peer_identity, server_credentials
from xds_server.server.errors import (
    ForbiddenProxyError,
    NotReadyError,
    StreamRefusedError,
    UnauthenticatedProxyError,
)
from xds_server.server.registry import PeerIdentity, ProxyRegistry, ProxyStatus
from xds_server.server.stream_runner import Authorize, StreamRunner

__all__ = [
    "AdsServer",
    "Authorize",
    "ForbiddenProxyError",
    "NotReadyError",
    "PeerIdentity",
    "ProxyRegistry",
    "ProxyStatus",
    "ServerIdentity",
    "StreamRefusedError",
    "UnauthenticatedProxyError",
    "server_credentials",
]

log = logging.getLogger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a lottery
    ("grpc.keepalive_time_ms", 30_000),  # a proxy whose machine is gone is noticed within 40 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # proxies may look after the connection as well
    ("grpc.max_concurrent_streams", 100),  # per connection; a proxy needs one
)


class AdsServer:
    """Serves the snapshots of a cache to proxies.

    Until `ready` is set streams are refused with UNAVAILABLE: a server that has just started and does not know
    everything would empty the proxies that reconnect to it (istio/istio#25495).

    Args:
        cache: what to serve.
        registry: where connected proxies are listed.
        authorize: is given the identity from the certificate and the node as the proxy calls itself; returns the
            group whose snapshot the proxy gets, or raises a StreamRefusedError (ForbiddenProxyError, as a rule). It
            must not block.
        credentials: from `server_credentials`; None means plaintext and proxies without identity, for measurements.
        host: where to listen.
        port: 0 for any.
    """

    def __init__(
        self,
        *,
        cache: SnapshotCache,
        registry: ProxyRegistry,
        authorize: Authorize,
        credentials: grpc.ServerCredentials | None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.ready = asyncio.Event()
        self.port = port
        self._cache = cache
        self._registry = registry
        self._authorize = authorize
        self._credentials = credentials
        self._host = host
        self._server: grpc.aio.Server | None = None
        self._runners: set[StreamRunner] = set()
        self._stopping = False

    async def start(self) -> None:
        """Listen; `port` is the real one from then on.

        Raises:
            OSError: the address can't be had.
        """
        server = grpc.aio.server(options=OPTIONS)  # needs the running loop
        method = grpc.stream_stream_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "StreamAggregatedResources": method(self._handler(SotwStream, DiscoveryRequest.FromString)),
            "DeltaAggregatedResources": method(self._handler(DeltaStream, DeltaDiscoveryRequest.FromString)),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = f"{self._host}:{self.port}"
        try:
            if self._credentials is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"xDS can't listen on {address}: {error}") from error
        await server.start()
        self._server = server

    async def stop(self, grace: float = 5.0) -> None:
        """End all streams with UNAVAILABLE, so that proxies reconnect elsewhere or later, and stop listening.

        Args:
            grace: seconds that streams have to end.
        """
        self._stopping = True
        for runner in list(self._runners):
            runner.stop()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _handler(
        self, make: Callable[[], DiscoveryStream[Any]], parse: Callable[[bytes], Any]
    ) -> Callable[[object, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[None]]:
        async def handle(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            try:
                self._refuse_if_not_ready()
                await self._serve(context, make(), parse)
            except StreamRefusedError as error:
                await _abort(context, error)

        return handle

    async def _serve(
        self,
        context: grpc.aio.ServicerContext[bytes, bytes],
        stream: DiscoveryStream[Any],
        parse: Callable[[bytes], DiscoveryRequest | DeltaDiscoveryRequest],
    ) -> None:
        async def read() -> bytes | None:
            try:
                encoded = await context.read()
            except grpc.aio.InternalError as error:
                raise ConnectionResetError(str(error)) from error
            return encoded if isinstance(encoded, bytes) else None

        async def write(encoded: bytes) -> None:
            try:
                await context.write(encoded)
            except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
                raise ConnectionResetError(str(error)) from error

        runner = StreamRunner(
            stream=stream,
            parse=parse,
            read=read,
            write=write,
            identity=peer_identity(context.auth_context()),
            peer=context.peer(),
            authorize=self._authorize,
            cache=self._cache,
            registry=self._registry,
        )
        self._runners.add(runner)
        try:
            await runner.run()
        finally:
            self._runners.discard(runner)

    def _refuse_if_not_ready(self) -> None:
        if self._stopping:
            raise NotReadyError("the control plane is shutting down")
        if not self.ready.is_set():
            raise NotReadyError("the control plane does not know everything yet")


async def _abort(context: grpc.aio.ServicerContext[bytes, bytes], error: StreamRefusedError) -> NoReturn:
    log.log(
        logging.DEBUG if isinstance(error, NotReadyError) else logging.WARNING,
        "stream of %s (%s) refused: %s",
        context.peer(),
        peer_identity(context.auth_context()),
        error,
    )
    await context.abort(grpc.StatusCode[error.status.name], str(error))
    raise AssertionError("abort raises")
