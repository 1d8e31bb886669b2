"""Lets an Envoy finish what it has begun."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from hairpin.envoy.admin import AdminClient
from hairpin.errors import HairpinError

POLL_SECONDS: Final = 0.05
QUIET_POLLS: Final = 4
"""So many times in a row without a request under way, and the connections that are left count as idle."""

_OWN = ("http.admin.", "listener.admin.")


async def drain(admin: AdminClient, seconds: float, *, still: Callable[[], bool]) -> None:
    """Has Envoy accept no more connections and close each after its next response, and waits for requests under way.

    Returns when no connection is left, when no request was seen for a moment (an idle connection may stay open for hours;
    what a TCP proxy carries counts as idle), when the time is up, or when Envoy doesn't answer.

    Args:
        admin: whose.
        seconds: how long at most.
        still: whether there is anything left to wait for.
    """
    quiet = 0
    with contextlib.suppress(TimeoutError, HairpinError):
        async with asyncio.timeout(seconds):
            # Failing the health check is what closes connections at once; `?graceful` does so ever more often over
            # --drain-time-s (10 minutes), which is also how gently changed listeners drain, so it must stay.
            await admin.post("/healthcheck/fail")
            await admin.post("/drain_listeners")
            while quiet < QUIET_POLLS and still():
                stats = await admin.stats(r"\.downstream_(cx|rq)_active$")
                active = [name for name, value in stats.items() if value and not name.startswith(_OWN)]
                if not active:
                    return
                quiet = 0 if any(name.endswith("_rq_active") for name in active) else quiet + 1
                await asyncio.sleep(POLL_SECONDS)
