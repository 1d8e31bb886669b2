"""`hairpin uninstall`: takes out everything that hairpin put into a cluster, whoever wrote it, in an order that harms nobody.

The controller goes first, since it mends what others take away; then the sessions and the EnvoyFilters, matches before all else
(`withdrawal`), so that requests go their old way while the agents still answer; then the agents, and all the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from hairpin.errors import HairpinError, UnavailableError
from hairpin.kubernetes.api import Api
from hairpin.kubernetes.crds import custom_resource_definitions
from hairpin.kubernetes.errors import ApiForbiddenError
from hairpin.kubernetes.installation import DEVELOPER, OURS, PART_OF, SYSTEM, VIEWER
from hairpin.kubernetes.inventory import CLUSTER_ROLE_BINDINGS, LABELLED, LABELS, ROLE_BINDINGS, items
from hairpin.kubernetes.kinds import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DELIVERED,
    DEPLOYMENTS,
    EGRESS_POLICIES,
    ENVIRONMENTS,
    ENVOY_FILTERS,
    NAMESPACES,
    SERVICES,
    SESSIONS,
    STATEFUL_SETS,
    Kind,
)
from hairpin.kubernetes.withdrawal import withdraw

JsonObject = dict[str, Any]
Say = Callable[[str], None]

_POLL_SECONDS = 0.2
_WITH_DEPENDENTS = (DEPLOYMENTS, STATEFUL_SETS, SERVICES)
"""Deleted in the foreground, which is the garbage collector's work: these are the last to go."""


async def uninstall(api: Api, *, say: Say, wait_seconds: float) -> int:
    """Take everything out; what is gone already is no error.

    Args:
        api: of the cluster.
        say: takes lines of progress.
        wait_seconds: how long to wait for what ends slowly: pods, definitions, the namespace.

    Returns:
        How many objects were removed.

    Raises:
        HairpinError: the API server refused; what was not reached is still there, and the command can be given again.
        UnavailableError: something does not end in time.
    """
    removal = _Removal(api, say)
    try:
        async with asyncio.timeout(wait_seconds):
            await removal.everything()
    except TimeoutError:
        remedy = "see what holds it (pods that do not end, finalizers), and uninstall again"
        raise UnavailableError(f"{removal.waiting_for} has not ended in {wait_seconds:g} s; {remedy}") from None
    except ApiForbiddenError as error:
        remedy = "uninstall as one who may, as the cluster's operators may"
        raise HairpinError(f"{removal.doing} is not allowed to you: {error}; {remedy}") from error
    return removal.removed


class _Removal:
    def __init__(self, api: Api, say: Say) -> None:
        self._api = api
        self._say = say
        self.removed = 0
        self.doing = ""
        self.waiting_for = ""

    async def everything(self) -> None:
        await self._remove(DEPLOYMENTS, labels=LABELS)
        await self._until_none(DEPLOYMENTS)
        await self._remove(SESSIONS)
        await self._withdraw()
        for kind in dict.fromkeys(DELIVERED.values()):
            await self._remove(kind, labels=LABELS)
        for kind in LABELLED:
            await self._remove(kind, labels=LABELS)
        for kind in _WITH_DEPENDENTS:
            await self._until_none(kind)
        for kind in (ENVIRONMENTS, EGRESS_POLICIES):
            await self._remove(kind)
        for definition in custom_resource_definitions():
            await self._remove_one(CUSTOM_RESOURCE_DEFINITIONS, definition["metadata"]["name"])
        for kind in (ADMISSION_POLICY_BINDINGS, ADMISSION_POLICIES):
            await self._remove(kind, labels=LABELS)
        await self._remove_namespace()
        await self._tell_of_bindings()

    async def _items(self, kind: Kind, *, labels: str = "") -> list[JsonObject]:
        self.doing = f"to list {kind.plural}"
        return await items(self._api, kind, labels=labels)

    async def _remove(self, kind: Kind, *, labels: str = "") -> None:
        removed = 0
        for item in await self._items(kind, labels=labels):
            metadata = item["metadata"]
            if metadata.get("deletionTimestamp"):
                continue
            self.doing = f"to delete {kind.name} {metadata['name']}"
            gone = await self._api.delete(
                kind,
                metadata["name"],
                namespace=metadata.get("namespace", ""),
                propagation="Foreground" if kind in _WITH_DEPENDENTS else "",
            )
            removed += gone is not None
        if removed:
            self.removed += removed
            self._say(f"removed {removed} {kind.plural if removed > 1 else kind.name}")

    async def _withdraw(self) -> None:
        self.doing = f"to write {ENVOY_FILTERS.plural}"
        self.waiting_for = "what sessions are steered by"
        if await withdraw(self._api):
            self._say("no request is steered any more")

    async def _remove_one(self, kind: Kind, name: str) -> None:
        """Of a kind that ends slowly: until it is gone."""
        self.doing = self.waiting_for = f"{kind.name} {name}"
        if await self._api.delete(kind, name) is None:
            return
        await self._until(lambda: self._is_gone(kind, name))
        self.removed += 1
        self._say(f"removed {kind.name} {name}")

    async def _remove_namespace(self) -> None:
        found = await self._api.find(NAMESPACES, SYSTEM)
        if found is None:
            return
        if (found["metadata"].get("labels") or {}).get(PART_OF) != OURS[PART_OF]:
            self._say(f"namespace {SYSTEM} is not labelled as hairpin's and stays")
            return
        await self._remove_one(NAMESPACES, SYSTEM)

    async def _until_none(self, kind: Kind) -> None:
        """Until those are gone, with what hangs on them: an object deleted in the foreground is the last to go."""
        self.waiting_for = f"a {kind.name} of hairpin's"
        await self._until(lambda: self._is_none(kind))

    async def _is_gone(self, kind: Kind, name: str) -> bool:
        return await self._api.find(kind, name) is None

    async def _is_none(self, kind: Kind) -> bool:
        left = await self._items(kind, labels=LABELS)
        if left:
            metadata = left[0]["metadata"]
            self.waiting_for = f"{kind.name} {metadata['namespace']}/{metadata['name']}"
        return not left

    async def _until(self, done: Callable[[], Awaitable[bool]]) -> None:
        while True:
            if await done():
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _tell_of_bindings(self) -> None:
        """Operators' own bindings of our roles: they are theirs, and give nothing any more."""
        for kind in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            for name in _bindings(await self._items(kind)):
                self._say(f"{kind.name} {name} is yours and stays; it gives nothing now: delete it")


def _bindings(items: list[JsonObject]) -> Iterator[str]:
    for item in items:
        role = item["roleRef"]
        if role["kind"] == "ClusterRole" and role["name"] in (DEVELOPER, VIEWER):
            yield "/".join(filter(None, (item["metadata"].get("namespace"), item["metadata"]["name"])))
