"""The numbers as a table."""

from __future__ import annotations

import os
from typing import Any


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def paths(summary: dict[str, Any]) -> str:
    """One row a path and number of connections."""
    lines = [
        "",
        (
            f"{'path':<30} {'conn':>4} {'req/s':>8} {'ratio':>6} {'(quartiles)':>13} "
            f"{'p50 ms':>7} {'over':>6} {'p99 ms':>7} {'CPU µs':>7} {'(quartiles)':>12}"
        ),
    ]
    for name, by_connections in summary.items():
        for connections, row in by_connections.items():
            ratio, cpu = row["rps_ratio"], row["cpu"]
            lines.append(
                f"{name:<30} {connections:>4} {row['rps']['median']:>8.0f} {ratio['median']:>6.2f} "
                f"({ratio['low']:.2f}–{ratio['high']:.2f})   {row['p50']['median']:>7.2f} {row['p50_over']['median']:>+6.2f} "
                f"{row['p99']['median']:>7.2f} {cpu['median']:>7.0f} ({cpu['low']:.0f}–{cpu['high']:.0f})"
            )
    return "\n".join(lines) + "\n"


def times(title: str, summary: dict[str, Any]) -> str:
    """One row a time, in milliseconds."""
    lines = ["", title]
    for name, row in summary.items():
        lines.append(f"  {name:<30} {row['median'] * 1e3:>7.0f} ms ({row['low'] * 1e3:.0f}–{row['high'] * 1e3:.0f})")
    return "\n".join(lines) + "\n"
