"""What an earlier installation put into the cluster, and this one has no place for: a namespace or an identity less."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hairpin.kubernetes.api import Api
from hairpin.kubernetes.inventory import LABELLED, LABELS, ROLE_BINDINGS, ROLES, items
from hairpin.kubernetes.kinds import DELIVERED, SESSIONS, Kind
from hairpin.kubernetes.withdrawal import withdraw
from hairpin.model.delivery import Delivery

JsonObject = dict[str, Any]
Say = Callable[[str], None]


async def prune(api: Api, wanted: Iterable[JsonObject], *, manager: str, say: Say) -> None:
    """Remove what the installer wrote and would not write now.

    In a namespace that is no longer served the controller's role goes first, so that nobody puts back what goes then.

    Args:
        api: of the cluster.
        wanted: the objects of the installation as it should be.
        manager: the installer's name as a field manager: what others wrote is theirs.
        say: takes lines of progress.
    """
    names = {_key(document) for document in wanted}
    roles = [kind for kind in LABELLED if kind in (ROLES, ROLE_BINDINGS)]
    others = [kind for kind in LABELLED if kind not in roles]
    dropped: set[str] = set()
    for kind in roles:
        removed = await _remove(api, kind, names, manager)
        dropped |= {item["metadata"]["namespace"] for item in removed if _serves(item)}
    for namespace in sorted(dropped):
        for item in await items(api, SESSIONS, namespace=namespace):
            await api.delete(SESSIONS, item["metadata"]["name"], namespace=namespace)
        await withdraw(api, namespace=namespace)
        for kind in {*DELIVERED.values()}:
            for item in await items(api, kind, namespace=namespace, labels=LABELS):
                await api.delete(kind, item["metadata"]["name"], namespace=namespace)
        say(f"no longer served: {namespace}")
    for kind in others:
        for item in await _remove(api, kind, names, manager):
            say(f"removed {kind.name} {'/'.join(filter(None, _key({**item, 'kind': kind.name})[1:]))}")


async def prune_deliveries(api: Api, delivery: Delivery, namespaces: Iterable[str], *, say: Say) -> None:
    """Remove what the controller wrote by another delivery; by now it may not put it back.

    EnvoyFilters of one delivery after another are the controller's own matter.
    """
    for kind in {*DELIVERED.values()} - {DELIVERED[delivery]}:
        removed = 0
        for namespace in namespaces:
            for item in await items(api, kind, namespace=namespace, labels=LABELS):
                await api.delete(kind, item["metadata"]["name"], namespace=namespace)
                removed += 1
        if removed:
            say(f"removed {removed} {kind.plural} of another delivery")


async def _remove(api: Api, kind: Kind, wanted: set[tuple[str, str, str]], manager: str) -> list[JsonObject]:
    stale = []
    for item in await items(api, kind, labels=LABELS):
        managers = {entry.get("manager") for entry in item["metadata"].get("managedFields", ())}
        if manager in managers and _key({**item, "kind": kind.name}) not in wanted:
            metadata = item["metadata"]
            await api.delete(kind, metadata["name"], namespace=metadata.get("namespace", ""), propagation="Background")
            stale.append(item)
    return stale


def _serves(role: JsonObject) -> bool:
    """Whether it is the controller's role in a served namespace; it has others."""
    return any(SESSIONS.group in rule["apiGroups"] for rule in role.get("rules") or ())


def _key(document: JsonObject) -> tuple[str, str, str]:
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]
