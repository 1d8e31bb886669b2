"""TypeState: what one stream knows of one resource type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from xds_server.model.resource import Resource, ResourceSet
from xds_server.protocol.subscription import Subscription

UNKNOWN = "?"
"""In place of a version: the client may or may not have taken it. No resource's version looks like this."""
REMOVED = ""
"""In place of a version: a removal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A response that the client has not answered yet."""

    nonce: str
    version: str
    contents: Mapping[str, str]
    """Versions by name, `REMOVED` for a removal."""
    warms: bool
    """It adds or changes something, so the client may have to warm it up."""
    whole: ResourceSet | None = None
    """For a response that replaces everything: what it carried, ..."""
    target: str = ""
    """... and the version that it leads to, which differs while removals are held back."""


@dataclass(slots=True)
class TypeState:
    """The subscription, what the client was given, and what it refused.

    Versions that were sent count as the client's until it refuses them; then they are `UNKNOWN`, because a client may
    have applied a part of what it refused.
    """

    type_url: str
    subscription: Subscription
    sent: dict[str, str] = field(default_factory=dict)
    urgent: set[str] = field(default_factory=set)
    """Names the client asked for: answered even if they were sent before, and perhaps out of turn."""
    answer: bool = False
    """The next response goes out even if it is empty."""
    again: bool = False
    """All of it is sent again, changed or not."""
    gone: frozenset[str] = frozenset()
    """What the client has and is to lose, once nothing refers to it."""
    flight: Flight | None = None
    nonce: str = ""
    refused: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """By name, the refused response's contents: all are let go when one of them changes, or is not wanted any more."""
    held: dict[str, Resource] = field(default_factory=dict)
    """For types whose removal waits: all that the client may have of what was sent on this stream."""
    sent_version: str = UNKNOWN
    refused_version: str = ""
    synced: str | None = None
    warmed: bool = False
    """Something was added or changed on this stream."""

    def is_refused(self, name: str, version: str) -> bool:
        """Say whether the client refused this very version of the resource (or its removal)."""
        return name in self.refused and self.refused[name].get(name) == version

    def has_refused(self) -> bool:
        """Say whether something refused is parked."""
        return bool(self.refused or self.refused_version)

    def forget(self, names: Collection[str]) -> None:
        """Drop what is known of names that the client no longer wants; what was refused with one of them is let go."""
        for name in names:
            self.sent.pop(name, None)
            self.held.pop(name, None)
            self._let_go(self.refused.get(name))
            self.urgent.discard(name)

    def forget_uncovered(self) -> None:
        """Drop what is known of all names outside of the subscription."""
        known = {*self.sent, *self.held, *self.refused, *self.urgent}
        self.forget([name for name in known if not self.subscription.covers(name)])

    def refuse(self, flight: Flight) -> None:
        """Park a refused response's contents; if a name is no longer wanted, the others are sent once more without it."""
        wanted = [name for name in flight.contents if self.subscription.covers(name)]
        for name in wanted:
            self.sent[name] = UNKNOWN
            if len(wanted) == len(flight.contents):
                self.refused[name] = flight.contents

    def release(self, resources: ResourceSet) -> None:
        """Let go of refused responses of which something has changed: the good in them was perhaps not applied."""
        for name in list(self.refused):
            contents = self.refused.get(name)
            if contents is not None and any(_version(resources, n) != v for n, v in contents.items()):
                self._let_go(contents)

    def _let_go(self, contents: Mapping[str, str] | None) -> None:
        for member in contents or ():
            if self.refused.get(member) is contents:
                del self.refused[member]


def _version(resources: ResourceSet, name: str) -> str:
    resource = resources.get(name)
    return REMOVED if resource is None else resource.version
