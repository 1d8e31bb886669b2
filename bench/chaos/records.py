"""What a caller saw, request by request, and what follows from it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

LAPTOP, CLUSTER, BYSTANDER = "laptop", "cluster", "bystander"
"""The names of those that can answer: the laptop whose parts are struck, the cluster's service, another laptop."""
OK = 200


class Kind(StrEnum):
    """What a request is."""

    UNMATCHED = "unmatched"
    """A GET without the environment's header."""
    GET = "GET"
    """A GET of the environment's."""
    POST = "POST"
    """A POST of the environment's, with a key of its own."""
    BYSTANDER = "bystander"
    """A GET of another environment, whose laptop nobody touches."""


@dataclass(slots=True, kw_only=True)
class Record:
    """One request, as its caller saw it. Times are of the event loop's clock, in seconds."""

    kind: Kind
    path: str
    key: str = ""
    sent: float
    begun: float | None = None
    """When the first byte of the response came."""
    ended: float = 0.0
    """When it was over, whether whole or not."""
    status: int = 0
    who: str = ""
    """Who answered, if an application did."""
    error: str = ""
    """Why there is no whole response."""
    text: str = ""
    """What a response that is no application's says: Envoy names the reason in its body."""

    @property
    def refused(self) -> bool:
        """It failed before an application's response began: no byte came, or an error of the mesh's."""
        return self.begun is None or self.status != OK

    @property
    def cut(self) -> bool:
        """The application's response began and never ended."""
        return not self.refused and bool(self.error)

    @property
    def intolerable(self) -> bool:
        """It failed as no fault may make it fail: only POSTs may, and answers of the laptop's that had begun."""
        return (self.refused and self.kind is not Kind.POST) or (self.cut and self.kind is Kind.UNMATCHED)


@dataclass(slots=True, kw_only=True)
class Counts:
    """What became of the requests of one fault, over all its repetitions."""

    sent: Counter[Kind] = field(default_factory=Counter)
    refused: Counter[Kind] = field(default_factory=Counter)
    cut: Counter[Kind] = field(default_factory=Counter)
    by_cluster: Counter[Kind] = field(default_factory=Counter)
    both: int = 0
    """POSTs that laptop and cluster both executed."""
    twice: int = 0
    """POSTs that one of them executed more than once."""
    nobody: int = 0
    """POSTs that failed and that nobody executed."""
    errors: Counter[str] = field(default_factory=Counter)
    """What failed requests showed."""

    def add(self, records: Iterable[Record], executed: Counter[tuple[str, str]]) -> None:
        """Count one repetition.

        Args:
            records: what callers saw.
            executed: how often each of the two executed each key.
        """
        for record in records:
            self.sent[record.kind] += 1
            self.refused[record.kind] += record.refused
            self.cut[record.kind] += record.cut
            self.by_cluster[record.kind] += not record.refused and record.who == CLUSTER
            if record.refused or record.cut:
                said = record.text or record.error
                self.errors[f"{record.kind} {record.path}: {record.status or ''} {said}".rstrip()] += 1
            if record.kind is Kind.POST:
                times = [executed[name, record.key] for name in (LAPTOP, CLUSTER)]
                self.both += min(times) > 0
                self.twice += max(times) > 1
                self.nobody += record.refused and max(times) == 0

    @property
    def disturbed(self) -> int:
        """The bystander's requests that were not answered by its laptop, or not wholly."""
        return sum(of[Kind.BYSTANDER] for of in (self.refused, self.cut, self.by_cluster))

    def complaints(self) -> list[str]:
        """What must not have happened, and did."""
        found = {
            "bystander's requests failed before their response began": self.refused[Kind.BYSTANDER],
            "unmatched requests failed": self.refused[Kind.UNMATCHED] + self.cut[Kind.UNMATCHED],
            "matched GETs failed before their response began": self.refused[Kind.GET],
            "POSTs were executed by laptop and cluster": self.both,
            "POSTs were executed twice": self.twice,
        }
        return [f"{count} {what}" for what, count in found.items() if count]


def executed(journal: str) -> Counter[tuple[str, str]]:
    """How often each name executed each key, by the applications' journal."""
    return Counter((name, key) for name, _, key in (line.partition(" ") for line in journal.splitlines()))


def laptop_again(records: Sequence[Record], since: float) -> float | None:
    """Seconds from `since` to the first answer of the laptop after the last GET that the cluster answered.

    None if the laptop answered none after that; 0 if the cluster answered none.
    """
    gets = [r for r in records if r.kind is Kind.GET and not r.refused and r.sent >= since]
    away = max((r.sent for r in gets if r.who == CLUSTER), default=None)
    back = [r.begun for r in gets if r.who == LAPTOP and r.begun is not None and (away is None or r.sent > away)]
    if not back:
        return None
    return 0.0 if away is None else min(back) - since


def first_answer(records: Sequence[Record], since: float) -> float | None:
    """Seconds from `since` to the first answer of a matched GET that was sent after it."""
    begun = [r.begun - since for r in records if r.kind is Kind.GET and r.begun is not None and r.sent >= since]
    return min(begun, default=None)


def longest_wait(records: Sequence[Record], since: float) -> float:
    """The most seconds that a matched GET waited after `since` for its first byte: in flight then, or sent later."""
    waits = [
        r.begun - max(r.sent, since) for r in records if r.kind is Kind.GET and r.begun is not None and r.begun >= since
    ]
    return max(waits, default=0.0)
