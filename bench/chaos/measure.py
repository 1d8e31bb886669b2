"""Repetitions of a fault under load, and their sum."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.chaos.faults import Fault, M, Struck
from bench.chaos.records import CLUSTER, Counts, Kind, Record, executed, first_answer, laptop_again, longest_wait

WARM_SECONDS = 0.3
"""Of load before a fault."""
FIRST_ANSWER_SECONDS = 3.0
REATTACH_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class Result:
    """A fault, all repetitions together. Times in seconds, one per repetition."""

    name: str
    what: str
    alone: bool
    one_second: bool
    counts: Counts = field(default_factory=Counts)
    again: list[float] = field(default_factory=list)
    """From the kill (the thaw, the next `hairpin run`) until the laptop answers again."""
    again_ready: list[float] = field(default_factory=list)
    """From the killed program being ready again."""
    first: list[float] = field(default_factory=list)
    """From the fault to the first answer of a matched GET sent after it."""
    waits: list[float] = field(default_factory=list)
    """The longest that a matched GET waited for its first byte, from the fault on."""
    no_tunnel: int = 0
    """POSTs sent while there was provably no tunnel."""
    no_tunnel_lost: int = 0
    """Those of them that the cluster did not answer."""
    failures: list[str] = field(default_factory=list)
    """The requests that must not have failed, in words, with their times from the fault on."""

    def complaints(self, *, slack: float = 1.0) -> list[str]:
        """What does not hold; times may be `slack` times as long."""
        found = [*self.counts.complaints(), *self.failures]
        if self.no_tunnel_lost:
            found.append(f"{self.no_tunnel_lost} POSTs without a tunnel were not answered by the cluster")
        if self.alone and self.counts.disturbed:
            found.append(f"{self.counts.disturbed} of the bystander's requests were disturbed")
        if (slowest := max(self.waits, default=0)) > FIRST_ANSWER_SECONDS * slack:
            found.append(f"a matched GET waited {slowest:.1f} s")
        if self.one_second and self.again and median(self.again) > REATTACH_SECONDS * slack:
            found.append(f"the laptop answers again after {median(self.again):.2f} s (p50)")
        return [f"{self.what}: {complaint}" for complaint in found]

    def to_json(self) -> dict[str, Any]:
        """For the file of numbers."""
        counts = self.counts
        return {
            **{field: getattr(self, field) for field in ("again", "again_ready", "first", "waits")},
            **{field: getattr(self, field) for field in ("no_tunnel", "no_tunnel_lost")},
            **{field: dict(getattr(counts, field)) for field in ("sent", "refused", "cut", "by_cluster", "errors")},
            **{field: getattr(counts, field) for field in ("both", "twice", "nobody", "disturbed")},
        }


def result_of(fault: Fault[M]) -> Result:
    """A result without repetitions."""
    return Result(name=fault.name, what=fault.what, alone=fault.alone, one_second=fault.one_second)


async def measure(
    mesh: M,
    faults: Sequence[Fault[M]],
    results: Sequence[Result],
    repetitions: int,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """All faults, interleaved: one after another in each round. What came of each is added to its result at once."""
    for number in range(repetitions):
        for fault, result in zip(faults, results, strict=True):
            progress(f"{number + 1}/{repetitions} {fault.what}")
            await repetition(mesh, fault, result)


async def repetition(mesh: M, fault: Fault[M], result: Result) -> None:
    """Strike once, and add what came of it.

    Raises:
        HairpinError: the laptop does not answer, before or afterwards.
    """
    async with mesh.load() as load:
        await mesh.laptops_answer(load, f"before: {fault.what}")
        await asyncio.sleep(WARM_SECONDS)
        struck = await fault.strike(mesh)
        await mesh.laptops_answer(load, f"after: {fault.what}")
    add(result, struck, load.records, mesh.journal.read_text())
    if load.stuck:
        result.failures.append(load.stuck)


def add(result: Result, struck: Struck, records: Sequence[Record], journal: str) -> None:
    """Add one repetition to the sum."""
    result.counts.add((r for r in records if r.ended >= struck.at), executed(journal))
    result.failures += [failure(r, struck.at) for r in records if r.ended >= struck.at and r.intolerable]
    since = struck.at if struck.since is None else struck.since
    if (again := laptop_again(records, since)) is not None:
        result.again.append(again)
        if struck.ready is not None:
            result.again_ready.append(max(0.0, since + again - struck.ready))
    if (first := first_answer(records, struck.at)) is not None:
        result.first.append(first)
    result.waits.append(longest_wait(records, struck.at))
    if struck.no_tunnel is not None:
        begin, end = struck.no_tunnel
        posts = [r for r in records if r.kind is Kind.POST and begin <= r.sent <= end]
        result.no_tunnel += len(posts)
        result.no_tunnel_lost += sum(r.refused or r.cut or r.who != CLUSTER for r in posts)


def failure(record: Record, at: float) -> str:
    """A request that failed, in words; `at` is when the fault was, by the clock of the record's times."""
    said = record.text or record.error
    times = f"sent {record.sent - at:+.2f} s from the fault, ended {record.ended - at:+.2f} s"
    return f"{record.kind} {record.path}: {record.status or 'no answer'}, {times}: {said}"


COLUMNS = (
    ("", "fault (repetitions)"),
    ("unmatched", "sent"),
    ("", "failed"),
    ("GET", "sent"),
    ("", "failed"),
    ("", "cut"),
    ("", "cluster"),
    ("POST", "sent"),
    ("", "failed"),
    ("", "by none"),
    ("", "cut"),
    ("", "both"),
    ("bystander", "sent"),
    ("", "failed"),
    ("", "disturbed"),
    ("first", "answer s"),
    ("longest", "wait s"),
    ("laptop again", "p50 (max) s"),
    ("from ready", "p50 s"),
)
"""Headings. failed: before an answer began; cut: in an answer's body; cluster: answered by it; by none: failed and executed by
nobody; both: executed by laptop and cluster; disturbed: not answered, or not wholly, by the bystander's own laptop."""


def table(results: Sequence[Result]) -> str:
    """One row a fault."""
    rows = [*zip(*COLUMNS, strict=True), *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        " ".join(f"{cell:>{width}}" if column else f"{cell:<{width}}" for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    for result in results:
        if result.no_tunnel:
            by_cluster = result.no_tunnel - result.no_tunnel_lost
            lines.append(
                f"{result.what}: {result.no_tunnel} POSTs sent meanwhile, {by_cluster} answered by the cluster"
            )
    return "\n".join(["", *lines, ""])


def _row(result: Result) -> tuple[str, ...]:
    c = result.counts
    numbers = (
        *(c.sent[Kind.UNMATCHED], c.refused[Kind.UNMATCHED] + c.cut[Kind.UNMATCHED]),
        *(c.sent[Kind.GET], c.refused[Kind.GET], c.cut[Kind.GET], c.by_cluster[Kind.GET]),
        *(c.sent[Kind.POST], c.refused[Kind.POST], c.nobody, c.cut[Kind.POST], c.both),
        *(c.sent[Kind.BYSTANDER], c.refused[Kind.BYSTANDER], c.disturbed),
    )
    return (
        f"{result.what} ({len(result.waits)})",
        *map(str, numbers),
        f"{max(result.first):.2f}" if result.first else "-",
        f"{max(result.waits):.2f}" if result.waits else "-",
        f"{median(result.again):.2f} ({max(result.again):.2f})" if result.again else "-",
        f"{median(result.again_ready):.2f}" if result.again_ready else "-",
    )


def silence() -> None:
    """What supervisors say of the killed is no news here."""
    for name in ("hairpin.envoy", "hairpin.mesh.program"):
        logging.getLogger(name).setLevel(logging.ERROR)
