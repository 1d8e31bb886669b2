"""ResponseCache: a response is encoded once for all streams that are sent the same."""

from __future__ import annotations

from collections import OrderedDict

from xds_server.protocol.actions import SendResponse, Variant
from xds_server.protocol.frames import encode_without_nonce, with_nonce

_Key = tuple[Variant, str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]

DEFAULT_LIMIT = 64 * 1024 * 1024


class ResponseCache:
    """Encoded responses by variant, type, version, names and resources' versions; the least recently used go first.

    That key determines the bytes, as a resource's version is a hash of its content: nothing in here can be out of date.
    """

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        """Start empty.

        Args:
            limit: how many bytes to keep; one larger response is still encoded, but not kept.
        """
        self.encoded = 0
        self.served = 0
        self._limit = limit
        self._size = 0
        self._responses: OrderedDict[_Key, bytes] = OrderedDict()

    def encode(self, response: SendResponse) -> bytes:
        """Return the response's bytes, its nonce included."""
        key = (
            response.variant,
            response.type_url,
            response.version,
            response.names,
            tuple(resource.version for resource in response.resources),
            response.removed,
        )
        shared = self._responses.get(key)
        if shared is None:
            shared = encode_without_nonce(response)
            self.encoded += 1
            self._keep(key, shared)
        else:
            self._responses.move_to_end(key)
        self.served += 1
        return with_nonce(shared, response.nonce)

    def __len__(self) -> int:
        return len(self._responses)

    def _keep(self, key: _Key, shared: bytes) -> None:
        self._responses[key] = shared
        self._size += len(shared)
        while self._size > self._limit:
            _, oldest = self._responses.popitem(last=False)
            self._size -= len(oldest)
