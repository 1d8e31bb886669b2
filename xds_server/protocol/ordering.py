"""Make before break: when a type has to wait for another, and when a removal may go out.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations

A change goes out as: clusters, endpoints, listeners, routes, extension configurations; then, once those that can refer
to a cluster have accepted a state without it, the removals.

Listeners, routes and extension configurations wait for the ACK of changed clusters, not only for their being sent:
Envoy holds the ACK of clusters back until they are warm (it has their endpoints), which is when a route may use them.
For all else being sent is enough, because a client handles a stream's responses in order. Clusters can be warming for
endpoints, secrets and extension configurations: the first two never wait, and an extension configuration that the
client asked for only until the clusters are sent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, auto

from xds_server.model.type_url import TypeUrl
from xds_server.protocol.type_state import TypeState

_EARLIER: Mapping[str, tuple[TypeUrl, ...]] = {
    TypeUrl.LISTENER: (TypeUrl.CLUSTER, TypeUrl.CLUSTER_LOAD_ASSIGNMENT),
    TypeUrl.ROUTE_CONFIGURATION: (TypeUrl.CLUSTER, TypeUrl.CLUSTER_LOAD_ASSIGNMENT, TypeUrl.LISTENER),
    TypeUrl.EXTENSION_CONFIG: (
        TypeUrl.CLUSTER,
        TypeUrl.CLUSTER_LOAD_ASSIGNMENT,
        TypeUrl.LISTENER,
        TypeUrl.ROUTE_CONFIGURATION,
    ),
}

SENT_AGAIN_AFTER: Mapping[str, TypeUrl] = {
    TypeUrl.CLUSTER: TypeUrl.CLUSTER_LOAD_ASSIGNMENT,
    TypeUrl.LISTENER: TypeUrl.ROUTE_CONFIGURATION,
}
"""A changed cluster stays warming until endpoints arrive, even unchanged ones, and a delta client does not ask for
them again (envoyproxy/envoy#13009); likewise a listener and its routes."""

_REFERRING = (TypeUrl.LISTENER, TypeUrl.ROUTE_CONFIGURATION, TypeUrl.EXTENSION_CONFIG, TypeUrl.CLUSTER)


class Turn(Enum):
    """Whether a type may be sent now."""

    OPEN = auto()
    ONLY_ASKED = auto()
    """Only what the client asked for: it may need that to go on."""
    CLOSED = auto()


def turn_of(type_url: str, types: Mapping[str, TypeState], unsent: Collection[str]) -> Turn:
    """Return whether a type may be sent, or has to wait for types before it.

    A refused response ends the wait: Envoy applies what is good in it, and one bad cluster must not keep every other
    change from the proxy.

    Args:
        type_url: the type that would be sent.
        types: the stream's types.
        unsent: types that may have something to send.
    """
    waits = False
    for earlier in _EARLIER.get(type_url, ()):
        state = types.get(earlier)
        if state is not None:
            warming = earlier == TypeUrl.CLUSTER and state.flight is not None and state.flight.warms
            waits = waits or warming or earlier in unsent
    if not waits:
        return Turn.OPEN
    if type_url == TypeUrl.EXTENSION_CONFIG and TypeUrl.CLUSTER not in unsent:
        return Turn.ONLY_ASKED
    return Turn.CLOSED


def may_remove(type_url: str, types: Mapping[str, TypeState], unsent: Collection[str]) -> bool:
    """Say whether nothing that the client holds can refer to this type's removed resources any more.

    Unlike in `turn_of`, a refusal counts: the client goes on with the old listener, route or rule, and with its clusters.
    """
    for referring in _REFERRING:
        state = types.get(referring)
        if state is None:
            continue
        if referring in unsent or state.flight is not None or state.has_refused():
            return False
        if referring == TypeUrl.CLUSTER != type_url and state.gone:
            return False
    return True
