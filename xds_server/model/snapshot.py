"""Snapshot: everything that one group of proxies is to have, at one moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Self

from xds_server.model.resource import Resource, ResourceSet

_EMPTY = ResourceSet()


class SnapshotInconsistentError(ValueError):
    """A snapshot that refers to what it does not have, or has what nothing refers to.

    Installing it would leave proxies waiting (a cluster without endpoints stays warming until its fetch timeout).
    """

    def __init__(self, type_url: str, *, missing: Collection[str], unreferenced: Collection[str]) -> None:
        """Name both kinds.

        Args:
            type_url: the type of the referenced resources.
            missing: names referred to, but absent.
            unreferenced: names present, but not referred to.
        """
        parts = [
            f"{words} {', '.join(sorted(names))}"
            for words, names in (("missing:", missing), ("not referred to:", unreferenced))
            if names
        ]
        super().__init__(f"inconsistent snapshot, {type_url.rsplit('.', 1)[-1]} {'; '.join(parts)}")
        self.type_url = type_url
        self.missing = frozenset(missing)
        self.unreferenced = frozenset(unreferenced)


class Snapshot:
    """An immutable map of type URL to `ResourceSet`.

    A snapshot has a version per type, not one of its own: a change of one type leaves the others as they were.
    """

    __slots__ = ("types",)

    def __init__(self, types: Mapping[str, ResourceSet]) -> None:
        """Take sets as they are; `Snapshot.of` is the usual way.

        Args:
            types: resource sets by type URL.
        """
        self.types: Mapping[str, ResourceSet] = MappingProxyType(dict(types))

    @classmethod
    def of(cls, resources: Iterable[Resource], *, references: Mapping[str, Collection[str]] | None = None) -> Self:
        """Make a snapshot of resources of any types.

        Args:
            resources: in any order; of two with one type and name, the later counts.
            references: names that other resources refer to, by the type that they refer to: endpoints that clusters
                name, route configurations that listeners name. The types given here are checked, both ways.

        Raises:
            SnapshotInconsistentError: names and resources of a type in `references` differ.
        """
        by_type: dict[str, list[Resource]] = {}
        for resource in resources:
            by_type.setdefault(resource.type_url, []).append(resource)
        snapshot = cls({type_url: ResourceSet(group) for type_url, group in by_type.items()})
        for type_url, names in (references or {}).items():
            present, wanted = set(snapshot.resources(type_url)), set(names)
            if present != wanted:
                raise SnapshotInconsistentError(type_url, missing=wanted - present, unreferenced=present - wanted)
        return snapshot

    def with_resources(self, type_url: str, resources: Iterable[Resource]) -> Snapshot:
        """Return a snapshot in which these are all resources of `type_url`; other types are shared, not copied."""
        return Snapshot({**self.types, type_url: ResourceSet(resources)})

    def resources(self, type_url: str) -> ResourceSet:
        """Return the resources of a type, empty if there are none."""
        return self.types.get(type_url, _EMPTY)

    def version(self, type_url: str) -> str:
        """Return the version of a type: a hash of its content."""
        return self.resources(type_url).version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and all(
            self.version(type_url) == other.version(type_url) for type_url in {*self.types, *other.types}
        )

    def __hash__(self) -> int:
        return hash(frozenset((type_url, s.version) for type_url, s in self.types.items() if s))

    def __repr__(self) -> str:
        return f"Snapshot({dict(self.types)})"
