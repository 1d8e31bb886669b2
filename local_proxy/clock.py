"""This machine's clock: whether it is good enough for short-lived certificates, and whether it went on while we did not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from hairpin.certificates import BACKDATED
from hairpin.errors import HairpinError


class ClockError(HairpinError):
    """This machine's clock makes certificates useless."""


def clock_problem(headers: Mapping[str, str]) -> str | None:
    """A sentence for the user if the clock is too far from an answer's Date."""
    with contextlib.suppress(TypeError, ValueError):
        return clock_skew_problem(parsedate_to_datetime(headers.get("Date", "")), datetime.now(UTC))
    return None


def clock_skew_problem(server_time: datetime, local_time: datetime, *, not_after: datetime | None = None) -> str | None:
    """A sentence for the user if this machine's clock is too far from the control plane's, else None.

    Certificates are valid from `BACKDATED` before their signing: a clock further behind than that sees none that is valid
    yet. A clock ahead sees them end early: at most half of the remaining time may be lost so (with `not_after`), or as much
    as a clock may be behind (without).

    Args:
        server_time: the control plane's time, as its answer came in.
        local_time: this machine's time at that moment.
        not_after: the end of the shortest-lived certificate in use.
    """
    skew = local_time - server_time
    ahead = BACKDATED if not_after is None else max(BACKDATED, (not_after - server_time) / 2)
    if -BACKDATED < skew < ahead:
        return None
    return (
        f"this machine's clock is {_in_words(abs(skew))} {'ahead of' if skew > timedelta(0) else 'behind'} the control "
        f"plane's ({local_time:%Y-%m-%d %H:%M:%S} here, {server_time:%Y-%m-%d %H:%M:%S} there), so certificates "
        f"{'seem to have expired' if skew > timedelta(0) else 'are not valid yet'}; set the clock (turn on time "
        "synchronization)"
    )


async def sleep_and_measure(seconds: float) -> float:
    """Sleep, and tell how much longer than that it took: this machine may have been asleep itself, or we stopped."""
    before = _wakeful()
    await asyncio.sleep(seconds)
    return max(0.0, _wakeful() - before - seconds)


def _wakeful() -> float:
    """Seconds that go on while the machine sleeps, as a monotonic clock's need not."""
    # Linux alone has this clock; elsewhere the time of day has to do.
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


def _in_words(time: timedelta) -> str:
    seconds = round(time.total_seconds())
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{round(seconds / length)} {unit}s"
    return f"{seconds} seconds"
