"""Copies of requests (mode `mirror`) in the agent's Envoy: pure.

A copy is taken whole before it goes to a laptop. So the sidecar that makes it never waits for a laptop or its process, which
would hold the original up; and what the agent holds is bounded: by `LARGEST`, and by how many copies a sidecar has under way.
It comes in HTTP/1.1 whatever the caller spoke; the process gets it in the caller's protocol.
"""

from __future__ import annotations

from hairpin.envoy.config import Config, http2_upstream, internal, message, static_cluster, typed
from hairpin.headers import COPY_HEADER, FORWARDED_HEADER, SESSION_HEADER

LARGEST = 4 << 20
"""Bytes of a copy's body; a larger one is refused, and the laptop sees nothing of it."""
LONGEST = "900s"
"""How long a copy may wait at a breakpoint: who is gone for longer doesn't keep others' copies out."""

FORWARDED = "hairpin.forwarded"
"""The filter state with the original's `x-forwarded-for`."""

_BUFFER = "envoy.filters.http.buffer"
_HTTP2 = "session-http2"


def session_cluster(name: str, options: Config) -> Config:
    """The way to the tunnels, through the internal listener, in a protocol."""
    raw = typed("envoy.transport_sockets.raw_buffer", "extensions.transport_sockets.raw_buffer.v3.RawBuffer")
    return static_cluster(
        name,
        internal("session"),
        typed_extension_protocol_options=options,
        transport_socket=typed(
            "envoy.transport_sockets.internal_upstream",
            "extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            transport_socket=raw,
        ),
    )


def copies_cluster() -> Config:
    """For copies of what came in HTTP/2, gRPC above all."""
    return session_cluster(_HTTP2, http2_upstream())


def taken_whole() -> Config:
    """The filter that takes copies whole, and nothing else."""
    buffer = typed(_BUFFER, "extensions.filters.http.buffer.v3.Buffer", max_request_bytes=LARGEST)
    return {**buffer, "disabled": True}


def copy_routes() -> tuple[Config, Config]:
    """Copies of HTTP/2 requests, and the others. A process tells them by the header `x-hairpin-copy`."""
    te = {"header": {"key": "te", "value": "trailers"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return _route({"string_match": {"exact": "HTTP/2"}}, _HTTP2, te), _route({"present_match": True}, "session")


def _route(protocol: Config, cluster: str, *headers: Config) -> Config:
    claimed = {"name": SESSION_HEADER, "present_match": True}
    original = {"key": "x-forwarded-for", "value": f"%FILTER_STATE({FORWARDED}:PLAIN)%"}
    return {
        "match": {"prefix": "/", "headers": [{"name": COPY_HEADER, **protocol}, claimed]},
        "route": {
            "cluster": cluster,
            "timeout": "0s",  # one that is set here is told to the process
            "max_stream_duration": {"max_stream_duration": LONGEST},
        },
        "request_headers_to_remove": ["x-forwarded-for", "x-envoy-internal", FORWARDED_HEADER],
        "request_headers_to_add": [{"header": original, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}, *headers],
        "typed_per_filter_config": {
            _BUFFER: message("extensions.filters.http.buffer.v3.BufferPerRoute", buffer={"max_request_bytes": LARGEST})
        },
    }
