"""The client side of everything a mesh carries: each check makes one protocol's exchanges with an echo server.

A check is awaited with the address to connect to, the authority to ask for, headers to send (names in lower case), and who
must answer. It raises AssertionError, and nothing else, with a message that names the protocol, the address and what was
wrong. Large bodies are made and summed a block at a time. `PROTOCOLS` holds them by name, for parametrised tests; those in
`GRPC` go to an echo server's gRPC port, the others to its HTTP port.
"""

from __future__ import annotations

from tests.support.checks import LARGE_BYTES, PROTOCOLS, Address, Check, Headers
from tests.support.grpc_checks import grpc_bidi, grpc_client_stream, grpc_error, grpc_server_stream, grpc_unary
from tests.support.http1_checks import (
    download,
    http1,
    http1_json,
    http1_session,
    sse,
    upload,
    upload_chunked,
    websocket,
)
from tests.support.http2_checks import http2, http2_download, http2_json, http2_upload

GRPC = frozenset(name for name in PROTOCOLS if name.startswith("grpc_"))
LARGE = frozenset({"upload", "upload_chunked", "download", "http2_upload", "http2_download"})
"""Those that carry `LARGE_BYTES`."""

__all__ = [
    "GRPC",
    "LARGE",
    "LARGE_BYTES",
    "PROTOCOLS",
    "Address",
    "Check",
    "Headers",
    "download",
    "grpc_bidi",
    "grpc_client_stream",
    "grpc_error",
    "grpc_server_stream",
    "grpc_unary",
    "http1",
    "http1_json",
    "http1_session",
    "http2",
    "http2_download",
    "http2_json",
    "http2_upload",
    "sse",
    "upload",
    "upload_chunked",
    "websocket",
]
