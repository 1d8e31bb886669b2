"""The resource types that the server knows, the order they are pushed in, and how the protocol treats each."""

from __future__ import annotations

from enum import StrEnum


class TypeUrl(StrEnum):
    """A discovery service's type URL. The order of the members is the order of a push.

    Make before break: what is referred to goes before what refers to it, as the protocol's own chapter on eventual
    consistency has it (clusters, endpoints, listeners, routes); extension configurations come last, because a rule
    may choose a route that must exist by then.
    """

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    CLUSTER_LOAD_ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTE_CONFIGURATION = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105
    EXTENSION_CONFIG = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"


_RANK = {str(type_url): rank for rank, type_url in enumerate(TypeUrl)}

FULL_STATE = frozenset({TypeUrl.CLUSTER, TypeUrl.LISTENER})
"""In the state-of-the-world variant a response of these carries every subscribed resource: absence means removal."""

LEGACY_WILDCARD = frozenset({TypeUrl.CLUSTER, TypeUrl.LISTENER})
"""A first request that names nothing means "everything" for these, and "nothing" for all others."""

LATE_REMOVAL = (TypeUrl.CLUSTER, TypeUrl.CLUSTER_LOAD_ASSIGNMENT, TypeUrl.SECRET)
"""Removed only when the types that can refer to them have accepted a state without the reference; in this order."""

NEVER_REMOVED = frozenset({TypeUrl.EXTENSION_CONFIG})
"""Removing one under a live listener has every request answered with 500 (envoyproxy/envoy#32823)."""


def push_rank(type_url: str) -> int:
    """Return the place of a type in a push; types unknown to the server come last."""
    return _RANK.get(type_url, len(_RANK))
