"""Frames: discovery requests and responses as bytes.

A response is encoded once for all streams and gets its nonce at the end: fields of a protobuf message may stand in any
order, and the nonce is field 5 of both responses.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage

from xds_server.protocol.actions import SendResponse, Variant
from xds_server.protocol.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)

__all__ = [
    "DeltaDiscoveryRequest",
    "DeltaDiscoveryResponse",
    "DiscoveryRequest",
    "DiscoveryResponse",
    "encode_without_nonce",
    "with_nonce",
]

_NONCE_TAG = b"\x2a"  # field 5, length-delimited
_ONE_BYTE_LENGTH = 0x80


def encode_without_nonce(response: SendResponse) -> bytes:
    """Encode all of a response but its nonce."""
    if response.variant is Variant.SOTW:
        return DiscoveryResponse(
            version_info=response.version,
            type_url=response.type_url,
            resources=[AnyMessage(type_url=r.type_url, value=r.body) for r in response.resources],
        ).SerializeToString()
    return DeltaDiscoveryResponse(
        system_version_info=response.version,
        type_url=response.type_url,
        resources=[
            Resource(name=r.name, version=r.version, resource=AnyMessage(type_url=r.type_url, value=r.body))
            for r in response.resources
        ],
        removed_resources=response.removed,
    ).SerializeToString()


def with_nonce(shared: bytes, nonce: str) -> bytes:
    """Return the encoded response with its nonce.

    Args:
        shared: from `encode_without_nonce`.
        nonce: at most 127 bytes long: its length is written as one byte.

    Raises:
        ValueError: the nonce is too long.
    """
    encoded = nonce.encode()
    if len(encoded) >= _ONE_BYTE_LENGTH:
        raise ValueError(f"nonce of {len(encoded)} bytes: at most {_ONE_BYTE_LENGTH - 1} fit")
    return shared + _NONCE_TAG + bytes((len(encoded),)) + encoded
