"""Whether this machine's clock is good enough for short-lived certificates, by the time of whoever answers."""

from __future__ import annotations

import contextlib
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
