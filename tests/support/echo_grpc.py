"""The gRPC side of the echo server: one service, JSON in raw bytes, so that no code has to be generated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from tests.support.echo_http import REQUEST_KEY, Shared

SERVICE = "hairpin.test.Echo"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class EchoService:
    """`Unary`, `ServerStream`, `ClientStream`, `Bidi` and `Fail`. Each answer, and each trailer `x-who`, says who."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def handler(self) -> grpc.GenericRpcHandler:
        """What a `grpc.aio` server takes."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
            "Bidi": grpc.stream_stream_rpc_method_handler(self.bidi),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def unary(self, request: bytes, context: Any) -> bytes:
        metadata = self._begin(context)
        return self._answer(message=json.loads(request)["message"], headers=metadata)

    async def server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        metadata = self._begin(context)
        for number in range(json.loads(request)["n"]):
            yield self._answer(n=number, headers=metadata)

    async def client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        metadata = self._begin(context)
        digest, count = hashlib.sha256(), 0
        async for request in requests:
            digest.update(request)
            count += 1
        return self._answer(count=count, sha256=digest.hexdigest(), headers=metadata)

    async def bidi(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        metadata = self._begin(context)
        number = 0
        async for request in requests:
            yield self._answer(n=number, message=json.loads(request)["message"], headers=metadata)
            number += 1

    async def fail(self, request: bytes, context: Any) -> bytes:
        self._begin(context)
        wanted = json.loads(request)
        await context.abort(CODES[wanted["code"]], wanted["message"])
        raise AssertionError("abort raises")

    def _begin(self, context: Any) -> dict[str, str]:
        """Counts the call, promises the trailers, and returns the metadata of the caller."""
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        if REQUEST_KEY in metadata:
            self._shared.received[metadata[REQUEST_KEY]] += 1
        context.set_trailing_metadata((("x-who", self._shared.who),))
        return metadata

    def _answer(self, **fields: Any) -> bytes:
        return json.dumps({"who": self._shared.who} | fields).encode()


async def start(shared: Shared, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """Serves; port 0 takes a free one. Returns the server and its port."""
    options = [
        ("grpc.so_reuseport", 0),  # a taken port is an error, not a second server
        ("grpc.http2.max_ping_strikes", 0),  # a proxy may ping as often as it likes
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((EchoService(shared).handler(),))
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return server, bound
