"""What the table of sessions keeps of each, and which of them stand in the way of a new claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hairpin.model.conflict import Holding, check_conflict, conflicts
from hairpin.model.session import Condition, Phase, Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from xds_server.sources.claims import Claimed


@dataclass(slots=True)
class Record:
    """A session, and what only the table knows of it."""

    session: Session
    claimed: Claimed | None
    deadline: datetime | None
    """When the session ends unless a tunnel comes up; None while one is up."""
    seen: bool = False
    """Whether a tunnel was ever up."""
    served: bool = False
    """Whether its requests are to be steered now."""
    confirmed: bool = False
    """Whether the target's sidecars have acknowledged that."""

    def holding(self) -> list[Holding]:
        """What it holds, if it takes requests."""
        session = self.session
        return [self.claimed.held(session.name, session.owner, session.created)] if self.claimed else []

    def phase(self, up: tuple[str, ...]) -> Phase:
        """Its phase, with tunnels up at these replicas."""
        if not up:
            return Phase.LOST if self.seen else Phase.PENDING
        return Phase.ACTIVE if self.confirmed else Phase.READY


def lost_before(records: Mapping[str, Record], owner: str, claimed: Claimed | None) -> list[str]:
    """The owner's sessions on the same port whose tunnel was up and is down and whose requests a new claim takes.

    Someone whose `hairpin run` was killed starts it again, and need not wait for the lease of the dead one.
    """
    if claimed is None:
        return []
    new = claimed.held("", owner, None)
    return [
        name
        for name, record in records.items()
        if (record.session.owner, record.session.status.phase) == (owner, Phase.LOST)
        and any(conflicts(held, new) for held in record.holding())
    ]


def conflicts_of(records: Iterable[Record], owner: str, claimed: Claimed | None) -> tuple[Condition, ...]:
    """What there is to remark on a new claim beside these.

    Raises:
        ConflictError: one of them holds its requests.
    """
    if claimed is None:
        return ()
    held = [holding for record in records for holding in record.holding()]
    return tuple(check_conflict(held, claimed.held("", owner, None)))
