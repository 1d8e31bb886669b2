"""The table of sessions, in memory: who claims what, which tunnels are up, what ends when. No I/O, no clock of its own.

Every method that depends on time takes `now`. What changed is told to the listeners, at once and in order; the server turns
that into pushes and watch events. In Kubernetes the API server holds the same objects.
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from hairpin.errors import NotFoundError
from hairpin.model.conflict import Holding, check_conflict, conflicts
from hairpin.model.match import Match
from hairpin.model.names import session_name
from hairpin.model.session import AgentAddress, Condition, Phase, Session, SessionSpec, SessionStatus
from hairpin.model.suggest import did_you_mean
from hairpin.model.version import OURS
from xds_server.sources.claims import Claimed, claim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hairpin.certificates import CertificateAuthority
    from hairpin.model.mesh import Mesh

CERTIFICATE_LIFETIME = timedelta(minutes=10)
START_GRACE = timedelta(seconds=30)
"""How long a new session may take to bring its tunnel up."""


class Unchanged:
    """Not part of a patch."""


UNCHANGED: Final = Unchanged()


class Change(StrEnum):
    """What became of a session; Kubernetes' watch events."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Listener(Protocol):
    """Is told of every change, synchronously."""

    def __call__(self, change: Change, session: Session) -> None:
        """`session` as it is now; as it last was when it is deleted."""


@dataclass(slots=True)
class _Record:
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


class SessionTable:
    """All sessions of one mesh.

    Args:
        mesh: the workloads that can be targets.
        authority: signs the sessions' certificates.
        agents: where laptops reach the agent's replicas.
        agent_identity: the URI SAN of the agent's certificate.
    """

    def __init__(
        self,
        mesh: Mesh,
        authority: CertificateAuthority,
        *,
        agents: tuple[AgentAddress, ...],
        agent_identity: str,
    ) -> None:
        self.mesh = mesh
        self.listeners: list[Listener] = []
        self.agent_listeners: list[Callable[[], None]] = []
        """Told when replicas begin or cease to report."""
        self._authority = authority
        self._agents = agents
        self._agent_identity = agent_identity
        self._records: dict[str, _Record] = {}
        self._versions: dict[str, str] = {}
        self._tunnels: dict[str, frozenset[str]] = {}
        """By connected replica, the sessions whose tunnels are up there."""

    # Reading

    @property
    def sessions(self) -> list[Session]:
        """In the order of their creation."""
        return [record.session for record in self._records.values()]

    @property
    def connected_agents(self) -> frozenset[str]:
        """The replicas that report."""
        return frozenset(self._tunnels)

    def get(self, name: str) -> Session:
        """The session of this name.

        Raises:
            NotFoundError: there is none.
        """
        return self._record(name).session

    def claimed(self, name: str) -> Claimed | None:
        """What the session takes; None in mode `egress`."""
        return self._record(name).claimed

    def active(self, workload: str, port: int) -> list[tuple[Session, Match]]:
        """The sessions that are served at this port now, with the requests they take."""
        return [
            (record.session, record.claimed.match)
            for record in self._records.values()
            if record.claimed is not None
            and record.served
            and (record.claimed.workload.name, record.claimed.port.number) == (workload, port)
        ]

    # What a laptop asks

    def create(self, owner: str, spec: SessionSpec, now: datetime) -> Session:
        """A new claim, certified; nothing is steered yet. A lost session of the owner's own makes room for it.

        Raises:
            NotFoundError: the mesh has no such target.
            InvalidFieldError: a field can't be used.
            ConflictError: someone holds these requests.
        """
        claimed = claim(self.mesh, spec)
        lost = self._lost_before(owner, claimed)
        remarks = self._conflicts(owner, claimed, without=lost)
        for name in lost:
            self.delete(name)
        name = session_name(owner, spec.target, spec.environment, secrets.token_hex(3))
        target = f"{claimed.workload.namespace}/{claimed.workload.name}:{claimed.port.number}" if claimed else ""
        status = SessionStatus(
            phase=Phase.PENDING,
            certificate=self._certify(name, spec, now),
            certificate_authority=self._authority.certificate,
            agent_identity=self._agent_identity,
            agents=self._addresses(),
            server=OURS,
            resolved_target=target,
            conditions=remarks,
        )
        session = Session(name=name, namespace=self.mesh.namespace, owner=owner, created=now, spec=spec, status=status)
        grace = max(START_GRACE, timedelta(seconds=spec.lease_seconds))
        self._records[name] = _Record(session=session, claimed=claimed, deadline=now + grace)
        self._tell(Change.ADDED, session)
        return session

    def patch(
        self,
        name: str,
        now: datetime,
        *,
        local_port: int | Unchanged | None = UNCHANGED,
        certificate_request: str | None = None,
    ) -> Session:
        """What a laptop keeps up to date: where its process listens, and its key before the certificate ends."""
        record = self._record(name)
        session = record.session
        spec, status = session.spec, session.status
        if not isinstance(local_port, Unchanged):
            spec = dataclasses.replace(spec, local_port=local_port)
        if certificate_request is not None:
            spec = dataclasses.replace(spec, certificate_request=certificate_request)
            status = dataclasses.replace(status, certificate=self._certify(name, spec, now))
        self._update(record, dataclasses.replace(session, spec=spec, status=status), now)
        return record.session

    def delete(self, name: str) -> Session:
        """End a session now."""
        record = self._record(name)
        del self._records[name]
        self._tell(Change.DELETED, record.session)
        return record.session

    # What an agent reports

    def report(self, agent: str, tunnels: frozenset[str], now: datetime) -> None:
        """A replica's whole state: the sessions whose tunnels are up there."""
        new = agent not in self._tunnels
        self._tunnels[agent] = tunnels
        self._refresh(now)
        if new:
            self._tell_agents()

    def agent_states(self, agent: str, version: str) -> None:
        """A replica says which hairpin it is."""
        self._versions[agent] = version

    def agent_gone(self, agent: str, now: datetime) -> None:
        """A replica no longer reports: its tunnels are down."""
        if self._tunnels.pop(agent, None) is not None:
            self._refresh(now)
            self._tell_agents()

    # What sidecars acknowledge

    def unconfirmed(self, workload: str) -> list[str]:
        """The served sessions of a workload that its sidecars have not acknowledged yet."""
        return [
            name
            for name, record in self._records.items()
            if record.served and not record.confirmed and record.claimed and record.claimed.workload.name == workload
        ]

    def confirm(self, names: Iterable[str], now: datetime) -> None:
        """The target's sidecars steer the requests of these sessions."""
        for name in names:
            record = self._records.get(name)
            if record is not None and record.served:
                record.confirmed = True
                self._update(record, record.session, now)

    # Time

    def next_deadline(self) -> datetime | None:
        """When the next lease runs out, if nothing happens before."""
        return min((r.deadline for r in self._records.values() if r.deadline is not None), default=None)

    def expire(self, now: datetime) -> list[Session]:
        """End the sessions whose lease has run out."""
        names = [n for n, r in self._records.items() if r.deadline is not None and r.deadline <= now]
        return [self.delete(name) for name in names]

    # Inside

    def _addresses(self) -> tuple[AgentAddress, ...]:
        return tuple(dataclasses.replace(agent, version=self._versions.get(agent.name, "")) for agent in self._agents)

    def _record(self, name: str) -> _Record:
        try:
            return self._records[name]
        except KeyError:
            hint = did_you_mean(name, self._records)
            raise NotFoundError(f"there is no session {name!r}{hint}; `hairpin sessions` lists them") from None

    def _lost_before(self, owner: str, claimed: Claimed | None) -> list[str]:
        """The owner's sessions on the same port whose tunnel was up and is down and whose requests the new one takes.

        Someone whose `hairpin run` was killed starts it again, and need not wait for the lease of the dead one.
        """
        if claimed is None:
            return []
        new = claimed.held("", owner, None)
        return [
            name
            for name, record in self._records.items()
            if (record.session.owner, record.session.status.phase) == (owner, Phase.LOST)
            and any(conflicts(held, new) for held in record.holding())
        ]

    def _conflicts(self, owner: str, claimed: Claimed | None, *, without: Sequence[str]) -> tuple[Condition, ...]:
        if claimed is None:
            return ()
        records = [record for name, record in self._records.items() if name not in without]
        held = [holding for record in records for holding in record.holding()]
        return tuple(check_conflict(held, claimed.held("", owner, None)))

    def _certify(self, name: str, spec: SessionSpec, now: datetime) -> str:
        certificate = self._authority.sign(
            spec.certificate_request, dns=(name,), lifetime=CERTIFICATE_LIFETIME, now=now
        )
        return certificate.chain

    def _refresh(self, now: datetime) -> None:
        for record in list(self._records.values()):
            self._update(record, record.session, now)

    def _update(self, record: _Record, session: Session, now: datetime) -> None:
        """Work out tunnels, phase and deadline anew; tell if anything is different."""
        up = tuple(sorted(agent for agent, sessions in self._tunnels.items() if session.name in sessions))
        status = session.status
        if up:
            record.seen, record.deadline = True, None
        elif status.tunnels:
            record.deadline = now + timedelta(seconds=session.spec.lease_seconds)
            status = dataclasses.replace(status, last_seen=now)
        served, record.served = record.served, self._serves(record, session.spec, up)
        record.confirmed = record.confirmed and record.served
        status = dataclasses.replace(status, agents=self._addresses(), tunnels=up, phase=_phase(record, up))
        session = dataclasses.replace(session, status=status)
        if session != record.session or served != record.served:
            record.session = session
            self._tell(Change.MODIFIED, session)

    def _serves(self, record: _Record, spec: SessionSpec, up: tuple[str, ...]) -> bool:
        # A sidecar spreads requests over all replicas: one without the session's tunnel would send its share back.
        everywhere = bool(up) and self.connected_agents <= set(up)
        return record.claimed is not None and spec.local_port is not None and everywhere

    def _tell_agents(self) -> None:
        for listener in self.agent_listeners:
            listener()

    def _tell(self, change: Change, session: Session) -> None:
        for listener in self.listeners:
            listener(change, session)


def _phase(record: _Record, up: tuple[str, ...]) -> Phase:
    if not up:
        return Phase.LOST if record.seen else Phase.PENDING
    return Phase.ACTIVE if record.confirmed else Phase.READY
