"""Has sidecars steer nothing any more, before what they steer with is taken from them.

A listener that changes drains: for up to `drainDuration` the connections that are open go on by its old routes. Istio takes
the clusters of those routes away at once, so a request that is matched on such a connection would find none, and be answered
503. So the matches go first, and by themselves; when sidecars have no match left, nothing chooses those routes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hairpin.kubernetes.api import Api
from hairpin.kubernetes.errors import ApiConflictError, ApiNotFoundError
from hairpin.kubernetes.inventory import LABELS, items
from hairpin.kubernetes.kinds import ENVOY_FILTERS

JsonObject = dict[str, Any]

PUSH_SECONDS = 5.0
"""Given to istiod to bring an object to the sidecars: the API server does not know when they have it."""


async def withdraw(api: Api, *, namespace: str = "", pause: float = PUSH_SECONDS) -> int:
    """Take the matches out of hairpin's EnvoyFilters, and wait until sidecars know.

    Args:
        api: of the cluster.
        namespace: whose; empty: everywhere.
        pause: seconds to wait if there were matches.

    Returns:
        From how many objects matches were taken.
    """
    changed = 0
    for document in await items(api, ENVOY_FILTERS, namespace=namespace, labels=LABELS):
        if _take_matches(document):
            try:
                await api.replace(ENVOY_FILTERS, _item(document))
            except ApiNotFoundError:
                continue
            except ApiConflictError:
                return changed + await withdraw(api, namespace=namespace, pause=pause)
            changed += 1
    if changed:
        await asyncio.sleep(pause)
    return changed


def _take_matches(document: JsonObject) -> bool:
    """Leave nothing by which a request is chosen; whether there was anything."""
    patches = (document.get("spec") or {}).get("configPatches") or []
    kept = [patch for patch in patches if not _is_callers_route(patch)]
    found = len(kept) < len(patches)
    for patch in kept:
        if patch.get("applyTo") == "EXTENSION_CONFIG":
            config = ((patch.get("patch") or {}).get("value") or {}).get("typedConfig") or {}
            found = config.pop("shadowRules", None) is not None or found
    if found:
        document["spec"]["configPatches"] = kept
    return found


def _is_callers_route(patch: JsonObject) -> bool:
    """By the delivery to callers the matches are in the routes."""
    context = (patch.get("match") or {}).get("context")
    return patch.get("applyTo") == "HTTP_ROUTE" and context == "SIDECAR_OUTBOUND"


def _item(document: JsonObject) -> JsonObject:
    """Items of a list do not say what they are."""
    return {**document, "apiVersion": ENVOY_FILTERS.api_version, "kind": ENVOY_FILTERS.name}
