"""Subscription: which resources of one type a client wants, by the rules of either variant.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from xds_server.model.resource import Resource, ResourceSet

WILDCARD = "*"


@dataclass(slots=True)
class Subscription:
    """The names a client gave and whether it wants everything, kept apart.

    An empty set of names can mean "everything" (a first request that names nothing, for the types that have this
    legacy) or "nothing" (a later one, or any other type): it can't be told from the set alone.
    """

    legacy_wildcard: bool
    names: set[str] = field(default_factory=set)
    wildcard: bool = False
    _named: bool = False
    _begun: bool = False

    def replace(self, names: Collection[str]) -> tuple[set[str], set[str]]:
        """Take the list of a state-of-the-world request, which is always whole.

        Returns:
            Names that came and names that went, `*` among them.
        """
        before = self._everything()
        self.names = {name for name in names if name != WILDCARD}
        self._named = self._named or bool(names)
        self.wildcard = WILDCARD in names or (self.legacy_wildcard and not self._named)
        after = self._everything()
        return after - before, before - after

    def update(self, subscribe: Collection[str], unsubscribe: Collection[str]) -> tuple[set[str], set[str]]:
        """Take the increments of a delta request; subscribing to the wildcard the old way survives named ones.

        Returns:
            Names to answer, although the client may have them (it may have dropped them meanwhile), and names that
            the client dropped; `*` among them.
        """
        dropped = {name for name in unsubscribe if name in self.names or (name == WILDCARD and self.wildcard)}
        self.names -= dropped
        if WILDCARD in dropped:
            self.wildcard = False
        self.names |= {name for name in subscribe if name != WILDCARD}
        legacy = self.legacy_wildcard and not self._begun and not subscribe
        self.wildcard = self.wildcard or legacy or WILDCARD in subscribe
        self._begun = True
        return {*subscribe, *((WILDCARD,) if legacy else ())}, dropped - set(subscribe)

    def covers(self, name: str) -> bool:
        """Say whether the client wants this name."""
        return self.wildcard or name in self.names

    def select(self, resources: ResourceSet) -> ResourceSet:
        """Return the part of `resources` that the client wants; the very same set if that is all of it."""
        if self.wildcard:
            return resources
        return ResourceSet(self._named_in(resources))

    def _named_in(self, resources: ResourceSet) -> list[Resource]:
        return [resources[name] for name in self.names if name in resources]

    def _everything(self) -> set[str]:
        return {*self.names, *((WILDCARD,) if self.wildcard else ())}
