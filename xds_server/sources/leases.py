"""The clock behind the table of sessions: ends leases when they run out."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hairpin.model.session import Session
    from xds_server.sources.sessions import Change, SessionTable

log = logging.getLogger(__name__)


def utcnow() -> datetime:
    """The control plane's clock."""
    return datetime.now(UTC)


class LeaseKeeper:
    """Sleeps until the next lease runs out, or until something changed."""

    def __init__(self, table: SessionTable) -> None:
        self._table = table
        self._changed = asyncio.Event()
        table.listeners.append(self._on_change)

    def _on_change(self, change: Change, session: Session) -> None:
        del change, session
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            deadline = self._table.next_deadline()
            delay = None if deadline is None else max(0.0, (deadline - utcnow()).total_seconds())
            try:
                async with asyncio.timeout(delay):
                    await self._changed.wait()
            except TimeoutError:
                for session in self._table.expire(utcnow()):
                    log.info("session %s of %s ended: its tunnel did not come back", session.name, session.owner)
