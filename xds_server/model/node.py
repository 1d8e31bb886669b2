"""Node: how a proxy names itself in its first request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """The proxy's own words about itself: not to be trusted before its certificate agrees.

    `id` is unique among proxies, `cluster` is the service that the proxy belongs to.
    """

    id: str
    cluster: str = ""
