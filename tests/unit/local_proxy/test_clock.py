"""Whether this machine's clock is good enough for short-lived certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from local_proxy.clock import clock_skew_problem

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("skew", [0, 59, -59])
def test_small_differences_of_clocks_are_fine(skew):
    assert clock_skew_problem(NOW, NOW + timedelta(seconds=skew)) is None


@pytest.mark.parametrize(
    ("skew", "said"),
    [
        (
            -420,
            "this machine's clock is 7 minutes behind the control plane's (2026-05-01 11:53:00 here, 2026-05-01 12:00:00 there), so certificates are not valid yet; set the clock",
        ),
        (-60, "60 seconds behind"),
        (60, "60 seconds ahead of"),
        (
            7200,
            "2 hours ahead of the control plane's (2026-05-01 14:00:00 here, 2026-05-01 12:00:00 there), so certificates seem to have expired",
        ),
        (86400 * 30, "30 days ahead"),
    ],
)
def test_larger_ones_are_said(skew, said):
    assert said in (clock_skew_problem(NOW, NOW + timedelta(seconds=skew)) or "")


def test_a_clock_ahead_may_cost_half_of_the_remaining_validity():
    assert clock_skew_problem(NOW, NOW + 4 * MINUTE, not_after=NOW + 10 * MINUTE) is None
    assert clock_skew_problem(NOW, NOW + 5 * MINUTE, not_after=NOW + 10 * MINUTE) is not None
    assert clock_skew_problem(NOW, NOW - MINUTE, not_after=NOW + 10 * MINUTE) is not None
