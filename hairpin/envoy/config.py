"""Builders for Envoy bootstraps: plain dicts in Envoy's own words, written to Envoy as JSON.

Nothing here knows what hairpin does: each function names one message of Envoy's API and fills in what every one of our
bootstraps fills in alike. Everything is pure except `write_identity`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.files import write_private
from hairpin.model.mesh import SocketAddress

_TYPES = "type.googleapis.com/"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Config = dict[str, Any]
"""One message of Envoy's API, in proto3 JSON."""

UNLIMITED: Config = {
    "thresholds": [
        {
            "max_connections": 1_000_000,
            "max_pending_requests": 1_000_000,
            "max_requests": 1_000_000,
            "max_retries": 1_000_000,
        }
    ]
}
"""Circuit breakers that never open: the defaults (1,024 requests, 3 retries) turn load into errors."""


def message(type_name: str, **fields: Any) -> Config:
    """A `google.protobuf.Any` of Envoy's message `type_name`, which is written without its leading `envoy.`."""
    return {"@type": f"{_TYPES}envoy.{type_name}", **fields}


def typed(name: str, type_name: str, **fields: Any) -> Config:
    """A `TypedExtensionConfig`, and every older message of its shape: a name and a typed configuration."""
    return {"name": name, "typed_config": message(type_name, **fields)}


def tcp(host: str, port: int) -> Config:
    """An address of IP and port."""
    return {"socket_address": {"address": host, "port_value": port}}


def address(at: SocketAddress) -> Config:
    """The same, of a `SocketAddress`."""
    return tcp(at.host, at.port)


def pipe(path: Path | str) -> Config:
    """The address of a Unix socket."""
    return {"pipe": {"path": str(path)}}


def internal(listener: str, endpoint_id: str = "") -> Config:
    """The address of an internal listener of the same Envoy."""
    address = {"server_listener_name": listener}
    return {"envoy_internal_address": address | ({"endpoint_id": endpoint_id} if endpoint_id else {})}


def static_cluster(name: str, *addresses: Config, connect_timeout: str = "2s", **fields: Any) -> Config:
    """A cluster of fixed endpoints, without circuit breakers."""
    return {
        "name": name,
        "connect_timeout": connect_timeout,
        "circuit_breakers": UNLIMITED,
        "load_assignment": load_assignment(name, *addresses),
        **fields,
    }


def load_assignment(name: str, *addresses: Config) -> Config:
    """A `ClusterLoadAssignment` of one locality."""
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}],
    }


def http2_upstream(*, common: Config | None = None, **options: Any) -> Config:
    """`typed_extension_protocol_options` of a cluster that is spoken to in HTTP/2.

    Args:
        common: `common_http_protocol_options`.
        options: Http2ProtocolOptions.
    """
    explicit = {"explicit_http_config": {"http2_protocol_options": options}}
    return _protocol_options(**explicit, **({"common_http_protocol_options": common} if common else {}))


def as_downstream(*, http1: Config | None = None, **fields: Any) -> Config:
    """`typed_extension_protocol_options` of a cluster spoken to in the caller's own HTTP version; `http1`: options of that."""
    protocols: Config = {"http_protocol_options": http1 or {}, "http2_protocol_options": {}}
    return _protocol_options(use_downstream_protocol_config=protocols, **fields)


def _protocol_options(**fields: Any) -> Config:
    return {_HTTP_OPTIONS: {"@type": _TYPES + _HTTP_OPTIONS, **fields}}


def http_inspector() -> Config:
    """The listener filter that tells HTTP from other bytes."""
    return typed("envoy.filters.listener.http_inspector", "extensions.filters.listener.http_inspector.v3.HttpInspector")


def tls_inspector() -> Config:
    """The listener filter that tells TLS from other bytes."""
    return typed("envoy.filters.listener.tls_inspector", "extensions.filters.listener.tls_inspector.v3.TlsInspector")


def inspected(*filters: Config, at_most: str) -> Config:
    """Fields of a listener whose filters see a connection's first bytes; without any, it goes on `at_most` (`0.3s`) later."""
    return {
        "listener_filters": [*filters],
        "listener_filters_timeout": at_most,
        "continue_on_listener_filters_timeout": True,
    }


def hears(inspector: Config) -> Config:
    """Fields of a listener beside reverse tunnels: each connection waits for its first bytes, 0.1 s at most, and then hears more.

    Envoy 1.40 closes a reverse tunnel's socket, and takes its events back only later. A connection that is accepted between
    the two gets the same descriptor's number, and no event ever: whoever sent a request on it waits without end
    (docs/decisions/0030). A listener filter's wait ends in any case, and has its events registered anew.

    Args:
        inspector: the filter that waits: `http_inspector()`, or `tls_inspector()` where connections are TLS.
    """
    return inspected(inspector, at_most="0.1s")


def http_manager(stat_prefix: str, *, filters: tuple[Config, ...] = (), **fields: Any) -> Config:
    """The HTTP connection manager as a network filter; the router ends its filters.

    Pass `route_config` or `rds`. A request and its stream may idle for as long as they like: someone may be at a
    breakpoint. Paths are passed on as they came.
    """
    router = typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
    return typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=stat_prefix,
        http_filters=[*filters, router],
        **{"stream_idle_timeout": "0s", "request_timeout": "0s"} | fields,
    )


def virtual_host(name: str, *routes: Config, domains: tuple[str, ...] = ("*",), **fields: Any) -> Config:
    """A virtual host."""
    return {"name": name, "domains": list(domains), "routes": list(routes), **fields}


def set_header(name: str, value: str) -> Config:
    """A `HeaderValueOption` that replaces whatever was there: Envoy's default appends."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def json_log(*filters: Config, **fields: str) -> Config:
    """An access log of one JSON object a line on stdout, where `ManagedEnvoy`'s `on_line` reads it.

    Envoy keeps a line for its flush interval at most.

    Args:
        filters: `AccessLogFilter`s that must all let a line pass.
        fields: the line's members, as Envoy's format strings; what has no value is null.
    """
    entry = typed(
        "envoy.access_loggers.stdout",
        "extensions.access_loggers.stream.v3.StdoutAccessLog",
        log_format={"json_format": fields},
    )
    match filters:
        case ():
            return entry
        case (only,):
            return {**entry, "filter": only}
        case _:
            return {**entry, "filter": {"and_filter": {"filters": list(filters)}}}


# TLS: a proxy's identity is a directory of three files, written by `write_identity` and watched by Envoy.


@dataclass(frozen=True, slots=True)
class Identity:
    """A proxy's certificate on disk. Key and chain share one file, so that a renewal is one atomic rename."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """Key and chain in PEM, mode 0600."""
        return self.directory / "identity.pem"

    @property
    def authority(self) -> Path:
        """What this proxy trusts, in PEM."""
        return self.directory / "ca.pem"

    @property
    def secret(self) -> Path:
        """The secret, as Envoy discovers it from a file: only a discovered one is read again when it changes."""
        return self.directory / "secret.json"


_SECRET = "identity"  # noqa: S105 # its name


def write_identity(identity: Identity, *, key: bytes, chain: bytes, authority: bytes) -> None:
    """Write or renew a proxy's identity; a running Envoy takes it for its next handshakes, without a restart."""
    identity.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {"filename": str(identity.certificate)}
    secret = {
        "@type": _TYPES + "envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": _SECRET,
        "tls_certificate": {
            "certificate_chain": files,
            "private_key": files,
            "watched_directory": {"path": str(identity.directory)},
        },
    }
    write_private(identity.authority, authority)
    write_private(identity.certificate, key.rstrip() + b"\n" + chain)
    if not identity.secret.exists():
        write_private(identity.secret, json.dumps({"resources": [secret]}).encode())


def san(kind: str, value: str) -> Config:
    """A `SubjectAltNameMatcher` for exactly this name; `kind` is `URI`, `DNS` or `IP_ADDRESS`."""
    return {"san_type": kind, "matcher": {"exact": value}}


def downstream_tls(
    identity: Identity, *peers: Config, alpn: tuple[str, ...] = ("h2", "http/1.1"), **fields: Any
) -> Config:
    """The transport socket of a listener that demands a certificate of its own authority, and of `peers` if given."""
    context = _common_tls(identity, peers, alpn)
    # A resumed session has no certificate verified: Envoy then calls its client unauthenticated, and one whose
    # certificate has expired since would come back.
    no_resumption = {"disable_stateless_session_resumption": True, "disable_stateful_session_resumption": True}
    fields = {"require_client_certificate": True, "common_tls_context": context, **no_resumption, **fields}
    return typed("envoy.transport_sockets.tls", "extensions.transport_sockets.tls.v3.DownstreamTlsContext", **fields)


def upstream_tls(
    identity: Identity, *peers: Config, alpn: tuple[str, ...] = ("h2",), sni: str = "", **fields: Any
) -> Config:
    """The transport socket of a cluster, with our certificate, demanding one of `peers` there."""
    context = _common_tls(identity, peers, alpn)
    fields = {"common_tls_context": context, "max_session_keys": 0, **({"sni": sni} if sni else {}), **fields}
    return typed("envoy.transport_sockets.tls", "extensions.transport_sockets.tls.v3.UpstreamTlsContext", **fields)


def _common_tls(identity: Identity, peers: tuple[Config, ...], alpn: tuple[str, ...]) -> Config:
    validation: Config = {"trusted_ca": {"filename": str(identity.authority)}}
    if peers:
        validation["match_typed_subject_alt_names"] = list(peers)
    source = {"path_config_source": {"path": str(identity.secret)}, "resource_api_version": "V3"}
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": list(alpn),
        "tls_certificate_sds_secret_configs": [{"name": _SECRET, "sds_config": source}],
        "validation_context": validation,
    }


# Runtime

ISTIO_RUNTIME: Config = {
    "layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}],
}
"""The `layered_runtime` of an Envoy that takes matches, as Istio's bootstrap has it. Envoy's own bound on regular
expressions, 100, has it refuse what matches are made of.
"""

# Discovery

ADS: Config = {"ads": {}, "resource_api_version": "V3"}
"""The `ConfigSource` of whatever comes over the aggregated stream."""


def ads(cluster: str, *, delta: bool = True) -> Config:
    """The `ads_config` of a bootstrap's `dynamic_resources`.

    A lost stream is tried again within two seconds: Envoy's own back-off goes up to thirty.
    """
    back_off = {"base_interval": "0.25s", "max_interval": "2s"}
    return {
        "api_type": "DELTA_GRPC" if delta else "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [
            {"envoy_grpc": {"cluster_name": cluster, "retry_policy": {"retry_back_off": back_off}}},
        ],
        "set_node_on_first_message_only": True,
    }


def ads_cluster(name: str, address: Config, identity: Identity, server: Config) -> Config:
    """The cluster of the control plane, over mutual TLS; `server` is the SAN that it must bear.

    The stream is watched by HTTP/2 keepalive, since a control plane may be silent for hours.
    """
    keepalive = {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
    return static_cluster(
        name,
        address,
        transport_socket=upstream_tls(identity, server),
        typed_extension_protocol_options=http2_upstream(**keepalive),
    )


def discovered_filter(name: str, default: Config, *type_names: str) -> Config:
    """An HTTP filter whose configuration comes by ADS (ECDS); `default` serves until it does, and at once."""
    return {
        "name": name,
        "config_discovery": {
            "config_source": ADS,
            "default_config": default,
            "apply_default_config_without_warming": True,
            "type_urls": [f"{_TYPES}envoy.{type_name}" for type_name in type_names],
        },
    }
