"""Waits until a target's sidecars have what they were sent, so that what is said to be so is so.

A session is `Active` when every connected sidecar of its target has acknowledged its rule; and a request of the API that
changes what is steered is answered when the change has arrived, or after a moment, if a sidecar does not answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xds_server.delivery.ads import sidecar_group
from xds_server.model.type_url import TypeUrl
from xds_server.sources.leases import utcnow

if TYPE_CHECKING:
    from hairpin.model.session import Session
    from xds_server.cache.snapshot_cache import SnapshotCache
    from xds_server.server.registry import ProxyRegistry
    from xds_server.sources.sessions import Change, SessionTable

PATIENCE = 2.0
"""Seconds that an answer of the API waits for sidecars."""


class Settler:
    """Confirms served sessions. Made after the delivery, so that it hears of a change when it is in the cache."""

    def __init__(self, table: SessionTable, cache: SnapshotCache, registry: ProxyRegistry) -> None:
        self._table = table
        self._cache = cache
        self._registry = registry
        self._dirty: set[str] = set()
        self._changed = asyncio.Event()
        table.listeners.append(self._on_change)

    async def run(self) -> None:
        """Until cancelled."""
        waiting: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changed.wait()
                self._changed.clear()
                for workload in self._dirty:
                    if earlier := waiting.pop(workload, None):
                        earlier.cancel()  # it waits for what is out of date
                    if self._table.unconfirmed(workload):
                        waiting[workload] = tasks.create_task(self._confirm(workload))
                self._dirty.clear()

    async def settled(self, workload: str) -> None:
        """Return when the workload's sidecars have the newest matches, or after `PATIENCE`."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._in_step(workload, proxies=0)
        except TimeoutError:
            return

    async def _confirm(self, workload: str) -> None:
        await self._in_step(workload, proxies=1)
        self._table.confirm(self._table.unconfirmed(workload), utcnow())

    async def _in_step(self, workload: str, *, proxies: int) -> None:
        group = sidecar_group(workload)
        snapshot = self._cache.get(group)
        if snapshot is not None:
            version = snapshot.version(TypeUrl.EXTENSION_CONFIG)
            await self._registry.wait_synced(group, TypeUrl.EXTENSION_CONFIG, version, proxies=proxies)

    def _on_change(self, change: Change, session: Session) -> None:
        del change
        if session.spec.target is not None:
            self._dirty.add(session.spec.target.name)
            self._changed.set()
