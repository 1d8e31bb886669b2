"""Which replica writes: a Lease of coordination.k8s.io, as Kubernetes' own controllers use it.

Who holds it renews it; who does not takes it when it has seen no renewal for as long as the lease lasts, by its own clock:
clocks need not agree. A holder that can't renew stops before that, and one that ends gives the lease back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hairpin.errors import HairpinError
from hairpin.kubernetes.errors import ApiConflictError
from hairpin.kubernetes.kinds import LEASES
from xds_server.sources.kubernetes.informer import Informer

if TYPE_CHECKING:
    from hairpin.kubernetes.api import Api, JsonObject
    from xds_server.model.cluster import Key

log = logging.getLogger(__name__)

_RENEWALS = 4
"""How often a lease is renewed in its time."""
_RENEWED_WITHIN = 0.7
"""The part of the lease's time after which a holder that can't renew stops: before another may take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a Lease says."""

    holder: str = ""
    seconds: float = 0.0
    renewed: str = ""
    acquired: str = ""
    transitions: int = 0
    version: str = ""

    @classmethod
    def of(cls, document: JsonObject) -> LeaseRecord:
        """Read it."""
        spec = document.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            seconds=float(spec.get("leaseDurationSeconds") or 0),
            renewed=spec.get("renewTime") or "",
            acquired=spec.get("acquireTime") or "",
            transitions=spec.get("leaseTransitions") or 0,
            version=document["metadata"]["resourceVersion"],
        )


class Election:
    """One candidate.

    Args:
        api: the API server.
        key: the Lease.
        identity: this replica's name; unique.
        seconds: how long a lease lasts.
    """

    def __init__(self, api: Api, key: Key, identity: str, *, seconds: int = 5) -> None:
        self.leading = False
        self.identity = identity
        self._api = api
        self._key = key
        self._seconds = seconds
        self._changed = asyncio.Event()
        self._lease = Informer(
            api,
            LEASES,
            parse=LeaseRecord.of,
            changed=self._changed.set,
            namespace=key.namespace,
            fields=f"metadata.name={key.name}",
        )
        self._taken = 0.0
        """When the write that took the lease began."""
        self._seen: tuple[str, float] = ("", 0.0)
        """The version of the lease that was seen last, and when, by the monotonic clock."""

    @property
    def holder(self) -> str:
        """Who holds the lease, as far as is known."""
        lease = self._lease.get(self._key)
        return lease.holder if lease else ""

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Be a candidate until cancelled; `lead` runs while the lease is held, and is cancelled when it is lost."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.run())
            while True:
                await self._acquire()
                log.info("leading as %s", self.identity)
                self.leading = True
                try:
                    await self._lead(lead)
                finally:
                    self.leading = False
                log.warning("no longer leading: the lease was lost")

    async def _acquire(self) -> None:
        """Return when the lease is ours."""
        while True:
            self._changed.clear()
            lease = self._lease.get(self._key)
            if self._lease.synced and self._free(lease):
                self._taken = time.monotonic()
                if await self._take(lease):
                    return
            pause = self._seconds / _RENEWALS * random.uniform(0.8, 1.2)  # noqa: S311 # no secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _free(self, lease: LeaseRecord | None) -> bool:
        now = time.monotonic()
        if lease is None or not lease.holder or lease.holder == self.identity:
            return True
        if lease.version != self._seen[0]:
            self._seen = lease.version, now
        return now - self._seen[1] >= max(lease.seconds, 1.0)

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Lead and renew, until the lease is lost or `lead` ends."""
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(_call(lead))
                await self._renew(work)
                work.cancel()
        except asyncio.CancelledError:
            # Both are at their end by now: nobody writes, so another may.
            await asyncio.shield(self._release())
            raise

    async def _renew(self, work: asyncio.Task[None]) -> None:
        """Return when the lease is lost, or the work done."""
        deadline = self._taken + self._seconds * _RENEWED_WITHIN
        while not work.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds / _RENEWALS):
                    await asyncio.wait([work])
            lease = self._lease.get(self._key)
            if lease is not None and lease.holder not in ("", self.identity):
                log.warning("%s has taken the lease", lease.holder)
                return
            started = time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, deadline - started)):
                    if await self._take(lease):
                        deadline = started + self._seconds * _RENEWED_WITHIN
            except TimeoutError:
                log.warning("the lease could not be renewed in time")
                return

    async def _take(self, lease: LeaseRecord | None) -> bool:
        """Write the lease as ours, if nobody wrote it meanwhile."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = lease is not None and lease.holder == self.identity
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._seconds,
            "acquireTime": (lease.acquired if lease and ours else "") or now,
            "renewTime": now,
            "leaseTransitions": (lease.transitions if lease else 0) + (0 if ours else 1),
        }
        return await self._write(lease, spec)

    async def _release(self) -> None:
        lease = self._lease.get(self._key)
        if lease is None or lease.holder != self.identity:
            return
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": lease.transitions}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                if await self._write(lease, spec):
                    log.info("the lease is given back")

    async def _write(self, lease: LeaseRecord | None, spec: JsonObject) -> bool:
        metadata = {"name": self._key.name, "namespace": self._key.namespace}
        document = {"apiVersion": LEASES.api_version, "kind": LEASES.name, "metadata": metadata, "spec": spec}
        try:
            if lease is None:
                written = await self._api.create(LEASES, document, namespace=self._key.namespace)
            else:
                metadata["resourceVersion"] = lease.version
                written = await self._api.replace(LEASES, document)
        except ApiConflictError:
            return False  # another was first; the watch will tell
        except HairpinError as error:
            log.warning("the lease can't be written: %s", error)
            return False
        self._lease.note(written)
        return True


async def _call(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()
