"""Resource and ResourceSet: encoded once, versioned by content, immutable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

_DIGEST_BYTES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One named resource as the bytes that go on the wire.

    `body` is the encoded message that `type_url` names (for `TypedExtensionConfig`: that message, not the extension).
    `version` is a hash of the body, so it says the same after a restart and on every replica.
    """

    name: str
    type_url: str
    body: bytes = field(repr=False)
    version: str

    @classmethod
    def of(cls, type_url: str, name: str, body: bytes) -> Self:
        """Make a resource, its version from its content."""
        version = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).hexdigest()
        return cls(name=name, type_url=type_url, body=body, version=version)


class ResourceSet(Mapping[str, Resource]):
    """Resources of one type by name, in the order of their names.

    `version` is a hash over all names and versions: two sets are equal exactly when their versions are. A set has no
    other identity, which is what lets one encoded response serve every stream.
    """

    __slots__ = ("_by_name", "version")

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        """Take the resources; of two with one name, the later.

        Args:
            resources: all of one type.
        """
        by_name = {resource.name: resource for resource in resources}
        self._by_name: Mapping[str, Resource] = MappingProxyType(dict(sorted(by_name.items())))
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for name, resource in self._by_name.items():
            digest.update(f"{len(name)}:{name}{resource.version}".encode())
        self.version = digest.hexdigest()

    def __getitem__(self, name: str) -> Resource:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResourceSet) and self.version == other.version

    def __hash__(self) -> int:
        return hash(self.version)

    def __repr__(self) -> str:
        return f"ResourceSet({list(self._by_name)}, version={self.version!r})"
