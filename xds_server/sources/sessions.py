"""The table of sessions, in memory: who claims what, which tunnels are up, what ends when. No I/O, no clock of its own.

Every method that depends on time takes `now`. What changed is told to the listeners, at once and in order; the server turns
that into pushes and watch events. In Kubernetes the API server holds the same objects.
"""

from __future__ import annotations

import dataclasses
import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from hairpin.errors import NotFoundError
from hairpin.model.match import Match
from hairpin.model.names import session_name
from hairpin.model.session import AgentAddress, Phase, Session, SessionSpec, SessionStatus
from hairpin.model.suggest import did_you_mean
from hairpin.model.version import OURS
from xds_server.sources.claims import Claimed, claim
from xds_server.sources.records import Record, conflicts_of, lost_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
        self._records: dict[str, Record] = {}
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
        lost = lost_before(self._records, owner, claimed)
        remarks = conflicts_of([one for name, one in self._records.items() if name not in lost], owner, claimed)
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
        self._records[name] = Record(session=session, claimed=claimed, deadline=now + grace)
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

    def _record(self, name: str) -> Record:
        try:
            return self._records[name]
        except KeyError:
            hint = did_you_mean(name, self._records)
            raise NotFoundError(f"there is no session {name!r}{hint}; `hairpin sessions` lists them") from None

    def _certify(self, name: str, spec: SessionSpec, now: datetime) -> str:
        certificate = self._authority.sign(
            spec.certificate_request, dns=(name,), lifetime=CERTIFICATE_LIFETIME, now=now
        )
        return certificate.chain

    def _refresh(self, now: datetime) -> None:
        for record in list(self._records.values()):
            self._update(record, record.session, now)

    def _update(self, record: Record, session: Session, now: datetime) -> None:
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
        status = dataclasses.replace(status, agents=self._addresses(), tunnels=up, phase=record.phase(up))
        session = dataclasses.replace(session, status=status)
        if session != record.session or served != record.served:
            record.session = session
            self._tell(Change.MODIFIED, session)

    def _serves(self, record: Record, spec: SessionSpec, up: tuple[str, ...]) -> bool:
        # A sidecar spreads requests over all replicas: one without the session's tunnel would send its share back.
        everywhere = bool(up) and self.connected_agents <= set(up)
        return record.claimed is not None and spec.local_port is not None and everywhere

    def _tell_agents(self) -> None:
        for listener in self.agent_listeners:
            listener()

    def _tell(self, change: Change, session: Session) -> None:
        for listener in self.listeners:
            listener(change, session)
