"""ProxyRegistry: which proxies are connected, what each was sent, and what it made of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from xds_server.model.node import Node
from xds_server.protocol.actions import (
    RecordAck,
    RecordNack,
    RecordStale,
    RecordSynced,
    SendResponse,
    Variant,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who the other end is by its certificate: the URI and DNS names in it, empty without a certificate."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join([*self.uris, *self.dns]) or "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    """A refusal: of which version, why in the proxy's words, and when."""

    version: str
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeStatus:
    """How one type stands with one proxy.

    `version_synced` is the version of the snapshot's type that the proxy is in step with: it has accepted all that it
    subscribes to. It is empty while a response is unanswered, refused or due. `nack` is the last refusal, kept until the
    proxy is in step again. `stale` counts requests that were overtaken by a response.
    """

    version_sent: str = ""
    version_acked: str = ""
    version_synced: str = ""
    nack: Nack | None = None
    stale: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; `nack` only where there is one."""
        versions = {"sent": self.version_sent, "acked": self.version_acked, "synced": self.version_synced}
        if self.nack is None:
            return versions
        nack = {"version": self.nack.version, "reason": self.nack.reason, "time": self.nack.time.isoformat()}
        return {**versions, "nack": nack}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyStatus:
    """One connected proxy, at one moment. `types` is by type URL."""

    node: Node
    identity: PeerIdentity
    group: str
    variant: Variant
    peer: str
    connected_since: datetime
    types: Mapping[str, TypeStatus] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; types go by their short names, such as `Listener`."""
        return {
            "node": {"id": self.node.id, "cluster": self.node.cluster},
            "identity": {"uris": list(self.identity.uris), "dns": list(self.identity.dns)},
            "group": self.group,
            "variant": self.variant.value,
            "peer": self.peer,
            "connectedSince": self.connected_since.isoformat(),
            "types": {type_url.rsplit(".", 1)[-1]: status.to_json() for type_url, status in self.types.items()},
        }


class Proxy:
    """A connected proxy, as its stream keeps it up to date."""

    __slots__ = ("_changed", "_status", "_types", "connected")

    def __init__(self, status: ProxyStatus, changed: Callable[[], None]) -> None:
        self.connected = True
        self._status = status
        self._types: dict[str, TypeStatus] = {}
        self._changed = changed

    @property
    def status(self) -> ProxyStatus:
        """A copy that stays as it is."""
        return replace(self._status, types=MappingProxyType(dict(self._types)))

    @property
    def group(self) -> str:
        """The group whose snapshot it gets."""
        return self._status.group

    def synced(self, type_url: str) -> str | None:
        """The version that a type is in step with; None if the proxy does not ask for the type."""
        status = self._types.get(type_url)
        return None if status is None else status.version_synced

    def note(self, record: SendResponse | RecordAck | RecordNack | RecordStale | RecordSynced) -> None:
        """Take what happened on the stream."""
        type_url = record.type_url
        before = self._types.get(type_url, TypeStatus())
        match record:
            case SendResponse(version=version):
                after = replace(before, version_sent=version, version_synced="")
            case RecordAck(version=version):
                after = replace(before, version_acked=version)
            case RecordNack(version=version, reason=reason):
                log.warning("%s refused %s %s: %s", self._status.node.id, type_url.rsplit(".", 1)[-1], version, reason)
                nack = Nack(version=version, reason=reason, time=datetime.now(UTC))
                after = replace(before, nack=nack)
            case RecordStale():
                after = replace(before, stale=before.stale + 1)
            case RecordSynced(version=version):
                after = replace(before, version_synced=version, nack=None)
        self._types[type_url] = after
        self._changed()


class ProxyRegistry:
    """The connected proxies. A closed stream leaves nothing in here."""

    def __init__(self) -> None:
        self._proxies: dict[int, Proxy] = {}
        self._waiting: set[asyncio.Event] = set()
        self._next = 0

    @contextmanager
    def connected(
        self, *, node: Node, identity: PeerIdentity, group: str, variant: Variant, peer: str
    ) -> Iterator[Proxy]:
        """Keep a proxy in the registry until the context ends."""
        status = ProxyStatus(
            node=node,
            identity=identity,
            group=group,
            variant=variant,
            peer=peer,
            connected_since=datetime.now(UTC),
        )
        self._next += 1
        key = self._next
        proxy = self._proxies[key] = Proxy(status, self._changed)
        self._changed()
        try:
            yield proxy
        finally:
            proxy.connected = False
            del self._proxies[key]
            self._changed()

    def proxies(self, group: str | None = None) -> list[ProxyStatus]:
        """Return all connected proxies, or those of one group, the longest connected first."""
        return [proxy.status for proxy in self._proxies.values() if group in (None, proxy.group)]

    def __len__(self) -> int:
        return len(self._proxies)

    async def wait_for(self, holds: Callable[[Sequence[ProxyStatus]], bool]) -> list[ProxyStatus]:
        """Return the proxies as soon as something holds for them; it is looked at after each change.

        Args:
            holds: is given all connected proxies.
        """
        with self._changes() as changed:
            while not holds(statuses := self.proxies()):
                changed.clear()
                await changed.wait()
            return statuses

    async def wait_synced(self, group: str, type_url: str, version: str, *, proxies: int = 1) -> list[ProxyStatus]:
        """Return when every proxy of a group that asks for a type is in step with a version, and so many are.

        Args:
            group: its key.
            type_url: the type.
            version: of the type in the group's snapshot, `Snapshot.version`.
            proxies: how many at least.
        """
        with self._changes() as changed:
            behind: list[Proxy] = []
            while True:
                # With many proxies one nearly always is behind: that one is looked at, not all of them each time.
                while behind and (not behind[-1].connected or behind[-1].synced(type_url) == version):
                    behind.pop()
                if not behind:
                    members = [p for p in self._proxies.values() if p.group == group and p.synced(type_url) is not None]
                    behind = [p for p in members if p.synced(type_url) != version]
                    if not behind and len(members) >= proxies:
                        return [p.status for p in members]
                changed.clear()
                await changed.wait()

    @contextmanager
    def _changes(self) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            yield changed
        finally:
            self._waiting.discard(changed)

    def _changed(self) -> None:
        for event in self._waiting:
            event.set()
