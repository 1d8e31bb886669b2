"""Informers: a copy of one kind's objects, kept up to date by LIST and WATCH, reduced to what is needed of them.

An informer never forgets on an error: while the API server is away the copy stays as it was. It knows an empty copy from
one that it has not got yet, and a kind that the API server does not have (its CRD was deleted, and its objects with it) is an
empty one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from hairpin.errors import HairpinError
from hairpin.kubernetes.errors import ApiGoneError, ApiNotFoundError
from xds_server.model.cluster import Key

if TYPE_CHECKING:
    from hairpin.kubernetes.api import Api, Event, JsonObject
    from hairpin.kubernetes.kinds import Kind

log = logging.getLogger(__name__)

FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0
"""Seconds between attempts, doubling from the first to the longest."""
MISSING_DELAY = 3.0
"""Seconds until a kind that was missing is looked for again."""

Facts = TypeVar("Facts")


class Backoff:
    """Delays between attempts: doubled each time, and a random half of each, so that replicas do not come as one."""

    def __init__(self, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        """It went well."""
        self._next = self._first

    def next(self) -> float:
        """Seconds to wait."""
        delay = self._next
        self._next = min(2 * delay, self._longest)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 # no secret


class Informer(Generic[Facts]):
    """One kind's objects, of one namespace or of the cluster.

    Args:
        api: where from.
        kind: of what.
        parse: makes of an object what is kept of it; None: it is not kept.
        changed: called after each change of the copy or of `synced`.
        namespace: whose; empty: the cluster's.
        labels: a label selector.
        fields: a field selector.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        *,
        parse: Callable[[JsonObject], Facts | None],
        changed: Callable[[], None],
        namespace: str = "",
        labels: str = "",
        fields: str = "",
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.synced = False
        """Whether the copy was complete once."""
        self.problem = ""
        """Why the copy is not up to date; empty if it is, as far as is known."""
        self.missing = False
        """Whether the API server does not have the kind."""
        self._api = api
        self._parse = parse
        self._changed = changed
        self._labels = labels
        self._fields = fields
        self._objects: dict[Key, tuple[int, Facts | None]] = {}
        """What is kept, by the resource version it is of."""
        self._version = ""

    def __iter__(self) -> Iterator[Facts]:
        return (facts for _, facts in self._objects.values() if facts is not None)

    def get(self, key: Key) -> Facts | None:
        """What is kept of one object."""
        _, facts = self._objects.get(key, (0, None))
        return facts

    def note(self, document: JsonObject) -> None:
        """Take an object as the API server answered it to a write of ours, before the watch has it."""
        if self._take(document):
            self._changed()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff()
        while True:
            try:
                if not self._version:
                    await self._list()
                backoff.reset()
                await self._watch()
            except ApiGoneError:
                self._version = ""
            except ApiNotFoundError as error:
                self._lose(error)
                await asyncio.sleep(MISSING_DELAY)
            except HairpinError as error:
                self._version = ""  # to see that it is well again: a watch may be silent for a minute
                self._trouble(str(error))
                await asyncio.sleep(backoff.next())
            except Exception as error:
                # A bug in reading one object must not end the others' informers.
                log.exception("%s", self)
                self._version = ""
                self._trouble(repr(error))
                await asyncio.sleep(backoff.next())

    async def _list(self) -> None:
        found = await self._api.list(
            self.kind, namespace=self.namespace, labels=self._labels, fields=self._fields, version="0"
        )
        self._version = found["metadata"]["resourceVersion"]
        # Another API server's cache may be behind what we have seen: what is newer here stays, until its watch is there.
        objects: dict[Key, tuple[int, Facts | None]] = {}
        for item in found["items"]:
            item.setdefault("kind", self.kind.name)
            item.setdefault("apiVersion", self.kind.api_version)
            key, version = _key(item), _version(item)
            before = self._objects.get(key)
            objects[key] = before if before is not None and before[0] > version else (version, self._parse(item))
        self._objects = objects
        if self.missing or self.problem:
            log.info("%s: up to date again", self)
        self.synced, self.missing, self.problem = True, False, ""
        self._changed()

    async def _watch(self) -> None:
        async for event in self._api.watch(
            self.kind,
            namespace=self.namespace,
            version=self._version,
            labels=self._labels,
            fields=self._fields,
            seconds=random.randint(240, 480),  # noqa: S311 # no secret
        ):
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        self._version = event.object["metadata"]["resourceVersion"]
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            # Gone, unless one of the same name was made since.
            key = _key(event.object)
            if key in self._objects and self._objects[key][0] <= int(self._version):
                del self._objects[key]
                self._changed()
        elif self._take(event.object):
            self._changed()

    def _take(self, document: JsonObject) -> bool:
        key, version = _key(document), _version(document)
        before = self._objects.get(key)
        if before is not None and before[0] >= version:
            return False  # it is what we wrote ourselves, or older
        facts = self._parse(document)
        self._objects[key] = (version, facts)
        return before is None or before[1] != facts

    def _lose(self, error: HairpinError) -> None:
        """The kind is gone, and its objects with it."""
        if not self.missing:
            log.info("%s: the API server does not have them: %s", self, error)
        news = not self.missing or bool(self._objects) or not self.synced
        self._objects = {}
        self._version = ""
        self.synced, self.missing, self.problem = True, True, str(error)
        if news:
            self._changed()

    def _trouble(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("%s: %s", self, problem)
            self.problem = problem
            self._changed()

    def __str__(self) -> str:
        return f"{self.kind.plural} of {self.namespace or 'the cluster'}"


def _key(document: JsonObject) -> Key:
    metadata = document["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def _version(document: JsonObject) -> int:
    # Opaque by the letter; a number in every API server on etcd, and comparable by Kubernetes' own promise since 1.35.
    return int(document["metadata"]["resourceVersion"])
