"""Where a mesh's proxies are told of sessions: the operators' choice."""

from __future__ import annotations

from enum import StrEnum


class Delivery(StrEnum):
    """One per mesh (docs/decisions/0009, 0012)."""

    INBOUND = "inbound"
    """At the target's own sidecars."""
    OUTBOUND = "outbound"
    """At callers' sidecars: no listener changes."""
    WAYPOINT_HTTP_ROUTE = "waypoint-httproute"
    """At an ambient mesh's waypoint, by the Gateway API's HTTPRoute."""
    WAYPOINT_VIRTUAL_SERVICE = "waypoint-virtualservice"
    """The same by Istio's VirtualService."""

    @property
    def by_route(self) -> bool:
        """Whether routes of a Service's port steer, and not the sidecars of the workloads behind it."""
        return self is not Delivery.INBOUND

    @property
    def at_waypoint(self) -> bool:
        """Whether it is a waypoint's."""
        return self in (Delivery.WAYPOINT_HTTP_ROUTE, Delivery.WAYPOINT_VIRTUAL_SERVICE)
