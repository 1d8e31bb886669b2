"""This machine's clock: whether it is good enough for short-lived certificates, and whether it went on while we did not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from hairpin.certificates import clock_skew_problem
from hairpin.errors import HairpinError


class ClockError(HairpinError):
    """This machine's clock makes certificates useless."""


def clock_problem(headers: Mapping[str, str]) -> str | None:
    """A sentence for the user if the clock is too far from an answer's Date."""
    with contextlib.suppress(TypeError, ValueError):
        return clock_skew_problem(parsedate_to_datetime(headers.get("Date", "")), datetime.now(UTC))
    return None


async def sleep_and_measure(seconds: float) -> float:
    """Sleep, and tell how much longer than that it took: this machine may have been asleep itself, or we stopped."""
    before = _wakeful()
    await asyncio.sleep(seconds)
    return max(0.0, _wakeful() - before - seconds)


def _wakeful() -> float:
    """Seconds that go on while the machine sleeps, as a monotonic clock's need not."""
    # Linux alone has this clock; elsewhere the time of day has to do.
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
