"""StreamRunner: the I/O of one stream around its state machine.

The reader takes requests as they come and never waits for the writer; the writer asks the state machine for the next
response whenever it can write one. Between them is one event: no queue, so nothing grows for a proxy that reads
slowly, and it holds nobody up but itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from google.protobuf.message import DecodeError

from xds_server.cache.snapshot_cache import SnapshotCache
from xds_server.model.node import Node
from xds_server.model.snapshot import Snapshot
from xds_server.protocol.actions import CloseStream, Status
from xds_server.protocol.frames import DeltaDiscoveryRequest, DiscoveryRequest
from xds_server.protocol.stream import DiscoveryStream
from xds_server.server.errors import InvalidRequestError, NotReadyError, StreamRefusedError
from xds_server.server.registry import PeerIdentity, Proxy, ProxyRegistry

Authorize = Callable[[PeerIdentity, Node], str]


class StreamRunner:
    """One stream of one proxy, from its first request to its end.

    Args:
        stream: its state machine, new.
        parse: the variant's request from bytes.
        read: the next request, None at the stream's end.
        write: returns when there is room for another response; raises ConnectionError if there is no stream any more.
        identity: who the proxy is by its certificate.
        peer: its address.
        authorize: see `AdsServer`.
        cache: the snapshots.
        registry: where the proxy is listed.
    """

    def __init__(
        self,
        *,
        stream: DiscoveryStream[Any],
        parse: Callable[[bytes], DiscoveryRequest | DeltaDiscoveryRequest],
        read: Callable[[], Awaitable[bytes | None]],
        write: Callable[[bytes], Awaitable[None]],
        identity: PeerIdentity,
        peer: str,
        authorize: Authorize,
        cache: SnapshotCache,
        registry: ProxyRegistry,
    ) -> None:
        self._stream = stream
        self._parse = parse
        self._read = read
        self._write = write
        self._identity = identity
        self._peer = peer
        self._authorize = authorize
        self._cache = cache
        self._registry = registry
        self._resources = ExitStack()
        self._wake = asyncio.Event()
        self._proxy: Proxy | None = None
        self._snapshot: Snapshot | None = None
        self._reading: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Serve the stream until the proxy or `stop` ends it.

        Raises:
            StreamRefusedError: the stream is to be closed with the error's status.
        """
        refused: StreamRefusedError | None = None
        with self._resources:
            try:
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(self._write_responses())
                    try:
                        await self._read_requests()
                    except StreamRefusedError as error:  # out of the group as itself, not inside of an ExceptionGroup
                        refused = error
                    finally:
                        writer.cancel()
            except* ConnectionError:
                pass  # it is gone; what it had is cleaned up as at any other end
        if refused is not None:
            raise refused

    def stop(self) -> None:
        """Have `run` end with NotReadyError, unless it is ending."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.reschedule(0)

    async def _read_requests(self) -> None:
        try:
            async with asyncio.timeout(None) as reading:  # `stop` lets it run out
                self._reading = reading
                try:
                    while (encoded := await self._read()) is not None:
                        self._take(encoded)
                finally:
                    self._reading = None
        except TimeoutError:
            raise NotReadyError("the control plane is shutting down") from None

    def _take(self, encoded: bytes) -> None:
        try:
            request = self._parse(encoded)
        except DecodeError as error:
            raise InvalidRequestError(f"not a discovery request: {error}") from error
        records = self._stream.note_request(request)
        for record in records:
            if isinstance(record, CloseStream):
                assert record.status is Status.INVALID_ARGUMENT  # noqa: S101 - a state machine has no other reason
                raise InvalidRequestError(record.message)
        if self._proxy is None:
            self._proxy = self._admit()
        for record in records:
            if not isinstance(record, CloseStream):
                self._proxy.note(record)
        self._wake.set()

    def _admit(self) -> Proxy:
        node = self._stream.node
        assert node is not None  # noqa: S101 - the state machine has closed the stream of a request without one
        group = self._authorize(self._identity, node)
        self._resources.enter_context(self._cache.watch(group, self._wake.set))
        return self._resources.enter_context(
            self._registry.connected(
                node=node, identity=self._identity, group=group, variant=self._stream.variant, peer=self._peer
            )
        )

    async def _write_responses(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            proxy = self._proxy
            assert proxy is not None  # noqa: S101 - what wakes it comes after
            self._refresh(proxy)
            while (response := self._stream.next_response()) is not None:
                proxy.note(response)
                await self._write(self._cache.responses.encode(response))
                self._refresh(proxy)
            for record in self._stream.newly_synced():
                proxy.note(record)

    def _refresh(self, proxy: Proxy) -> None:
        """Let the state machine have the newest snapshot, if it has not."""
        snapshot = self._cache.get(proxy.group)
        if snapshot is not None and snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._stream.note_snapshot(snapshot)
