"""The agent's Envoy: pure, and the same for any number of sessions.

What differs between sessions follows each request: the sidecar's route wrote the session's name into
`x-hairpin-session`; as filter state it crosses the internal listener `session`, picks the tunnel, the name that the
laptop's certificate must bear and, being a hashable string, the connection pool. So a session starts and ends without
a change here; only the policy of the egress, one ECDS resource, names sessions.
"""

from __future__ import annotations

from agent.copies import FORWARDED, copies_cluster, copy_routes, session_cluster, taken_whole
from agent.egress import egress_clusters, egress_listener
from agent.settings import AgentSettings, Role
from hairpin.envoy.config import (
    UNLIMITED,
    Config,
    address,
    ads,
    ads_cluster,
    as_downstream,
    downstream_tls,
    hears,
    http2_upstream,
    http_inspector,
    http_manager,
    json_log,
    message,
    san,
    set_header,
    tls_inspector,
    typed,
    upstream_tls,
    virtual_host,
)
from hairpin.headers import COPY_HEADER, FORWARDED_HEADER, SERVED_HEADER, SESSION_HEADER
from hairpin.model.mesh import SocketAddress
from hairpin.model.names import is_address

_SESSION = "%FILTER_STATE(hairpin.session:PLAIN)%"
_LIFECYCLE = "envoy.reverse_tunnel.lifecycle"
_CONTROL_PLANE = "xds-server"
_SERVER = san("DNS", _CONTROL_PLANE)
_RATE = "request-log"
_KEEPALIVE: Config = {"connection_keepalive": {"interval": "1s", "timeout": "1s"}}
"""A laptop whose lid is closed answers nothing: its requests fall through after two seconds at most."""
_FOREVER: Config = {"idle_timeout": "0s"}
_MAY_BE_DELIVERED: Config = {
    "filter": {"response_flag_filter": {"flags": ["UC", "UR"]}},
    "headers_to_add": [set_header("x-envoy-ratelimited", "true")],
}
"""When the tunnel ends under a request, its process may have had it. Istio has callers' sidecars repeat whatever ends
UNAVAILABLE, as all of gRPC does then; this is the one header that keeps an Envoy from it (docs/decisions/0010)."""
_COUNTED_FOR_NOTHING: list[Config] = [
    {"prefix": "cluster.session."},
    # All but those of what is under way, which a drain waits for.
    {"safe_regex": {"regex": r"(.*\.)?http\.steer\.downstream_(rq|cx)_[b-z0-9].*"}},
]
"""Counters and histograms of each steered request: nobody reads them, and they are a tenth of what a request costs."""


def agent_bootstrap(settings: AgentSettings) -> Config:
    """The bootstrap of the agent's Envoy, for `--concurrency 1`: a tunnel belongs to one worker."""
    steers = settings.role is Role.STEER
    return {
        "node": {"id": f"agent~{settings.name}.{settings.namespace}", "cluster": f"hairpin-agent.{settings.namespace}"},
        "bootstrap_extensions": _steering_extensions() if steers else [],
        "stats_config": {"stats_matcher": {"exclusion_list": {"patterns": _COUNTED_FOR_NOTHING}}},
        "dynamic_resources": {"ads_config": ads(_CONTROL_PLANE)},
        "static_resources": {
            "clusters": [
                _control_plane_cluster(settings),
                *((_tunnel_cluster(settings), _session_cluster(), copies_cluster()) if steers else ()),
                *egress_clusters(settings),
            ],
            "listeners": [*_steering_listeners(settings), egress_listener(settings)],
        },
    }


def _control_plane_cluster(settings: AgentSettings) -> Config:
    at = settings.control_plane.xds
    cluster = ads_cluster(_CONTROL_PLANE, address(at), settings.identity, _SERVER)
    if is_address(at.host):
        return cluster
    return cluster | {"type": "STRICT_DNS", "dns_lookup_family": "ALL", "dns_refresh_rate": "5s"}


def _steering_extensions() -> list[Config]:
    internal_listener = "envoy.bootstrap.internal_listener"
    return [
        _tunnel_sockets(),
        typed(internal_listener, "extensions.bootstrap.internal_listener.v3.InternalListener"),
    ]


def _steering_listeners(settings: AgentSettings) -> list[Config]:
    if settings.tunnel is None or settings.steer is None:
        return []
    return [
        _tunnel_listener(settings, settings.tunnel),
        _steer_listener(settings, settings.steer),
        _session_listener(),
    ]


def _tunnel_sockets() -> Config:
    """Reverse tunnels' bootstrap extension, which also says when a tunnel comes and goes, as lines on stdout."""
    fields = {
        "event": f"%DYNAMIC_METADATA({_LIFECYCLE}:event)%",
        "session": f"%DYNAMIC_METADATA({_LIFECYCLE}:node_id)%",
        "socket": f"%DYNAMIC_METADATA({_LIFECYCLE}:fd)%",
        "reason": f"%DYNAMIC_METADATA({_LIFECYCLE}:close_reason)%",
    }
    value = {"string_match": {"safe_regex": {"regex": "tunnel_setup|tunnel_closed"}}}
    matcher = {"filter": _LIFECYCLE, "path": [{"key": "event"}], "value": value}
    only = {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}
    return typed(
        "envoy.bootstrap.reverse_tunnel.upstream_socket_interface",
        "extensions.bootstrap.reverse_tunnel.upstream_socket_interface.v3.UpstreamReverseConnectionSocketInterface",
        stat_prefix="tunnel",
        enable_detailed_stats=True,
        # A miss is counted when a ping is sent and taken back by its answer: at 1, a living laptop is given up.
        ping_failure_threshold=2,
        access_log=[json_log(only, **fields)],
    )


def _tunnel_listener(settings: AgentSettings, at: SocketAddress) -> Config:
    """Where laptops connect. A certificate takes no other session's tunnel: its DNS SAN must be the node's name."""
    tunnel = typed(
        "envoy.filters.network.reverse_tunnel",
        "extensions.filters.network.reverse_tunnel.v3.ReverseTunnel",
        ping_interval="1s",  # below one second Envoy 1.40 pings without pause
        use_http_upgrade=True,
        validation={"node_id_format": "%DOWNSTREAM_PEER_DNS_SAN%"},
    )
    return {
        "name": "tunnel",
        "address": address(at),
        "filter_chains": [{"transport_socket": downstream_tls(settings.identity), "filters": [tunnel]}],
        **hears(tls_inspector()),
    }


def _tunnel_cluster(settings: AgentSettings) -> Config:
    """The tunnels by session. TLS here, not the handshake's, protects the requests (envoyproxy/envoy#42116)."""
    return {
        "name": "tunnel",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": UNLIMITED,
        "cluster_type": typed(
            "envoy.clusters.reverse_connection",
            "extensions.clusters.reverse_connection.v3.ReverseConnectionClusterConfig",
            host_id_format=_SESSION,
        ),
        "transport_socket": upstream_tls(settings.identity),
        "typed_extension_protocol_options": http2_upstream(common=_FOREVER, **_KEEPALIVE),
    }


def _steer_listener(settings: AgentSettings, at: SocketAddress) -> Config:
    name = {
        "format_string": {"text_format_source": {"inline_string": f"%REQ({SESSION_HEADER})%"}},
        "shared_with_upstream": "ONCE",
    }
    forwarded = {"text_format_source": {"inline_string": f"%REQ({FORWARDED_HEADER})%"}, "omit_empty_values": True}
    remember = typed(
        "envoy.filters.http.set_filter_state",
        "extensions.filters.http.set_filter_state.v3.Config",
        on_request_headers=[
            {"object_key": "hairpin.session", "factory_key": "envoy.hashable_string", **name},
            {"object_key": "envoy.network.upstream_server_name", **name},
            {"object_key": "envoy.network.upstream_subject_alt_names", **name},
            {"object_key": FORWARDED, "factory_key": "envoy.string", "format_string": forwarded, "skip_if_empty": True},
        ],
    )
    steered = {"prefix": "/", "headers": [{"name": SESSION_HEADER, "present_match": True}]}
    routes = virtual_host(
        "sessions",
        *copy_routes(),
        {
            "match": steered,
            "route": {"cluster": "session", "timeout": "0s"},
            "response_headers_to_add": [set_header(SERVED_HEADER, "%RESPONSE_CODE_DETAILS%")],
        },
        {
            "match": {"prefix": "/"},
            "direct_response": {"status": 503},
            "response_headers_to_add": [set_header(SERVED_HEADER, "unclaimed")],
        },
    )
    manager = http_manager(
        "steer",
        filters=(remember, taken_whole()),
        route_config={"virtual_hosts": [routes]},
        # A refusal with a body would be cut off by the sidecar's retry, and over HTTP/1.1 that costs the connection.
        local_reply_config={
            "body_format": {"text_format_source": {"inline_string": ""}},
            "mappers": [_MAY_BE_DELIVERED],
        },
        forward_client_cert_details="ALWAYS_FORWARD_ONLY",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        access_log=[_request_log(settings)],
    )
    return {
        "name": "steer",
        "address": address(at),
        "filter_chains": [{"filters": [manager]}],
        **hears(http_inspector()),
    }


def _request_log(settings: AgentSettings) -> Config:
    """One line for a session's request, on stdout; past the rate they are left out, and cost nothing."""
    claimed = {"header_filter": {"header": {"name": SESSION_HEADER, "present_match": True}}}
    source = {"path_config_source": {"path": str(settings.request_log_rate)}, "resource_api_version": "V3"}
    rate = typed(
        "envoy.access_loggers.extension_filters.process_ratelimit",
        "extensions.access_loggers.filters.process_ratelimit.v3.ProcessRateLimitFilter",
        dynamic_config={"resource_name": _RATE, "config_source": source},
    )
    return json_log(
        claimed,
        {"extension_filter": rate},
        session=f"%REQ({SESSION_HEADER})%",
        method="%REQ(:METHOD)%",
        authority="%REQ(:AUTHORITY)%",
        path="%REQ(:PATH)%",
        status="%RESPONSE_CODE%",
        durationMs="%DURATION%",
        served="%RESPONSE_CODE_DETAILS%",
        copy=f"%REQ({COPY_HEADER})%",
    )


def request_log_rate(settings: AgentSettings) -> Config:
    """What the file `settings.request_log_rate` says to Envoy: a token bucket."""
    bucket = {
        "@type": "type.googleapis.com/envoy.type.v3.TokenBucket",
        "max_tokens": settings.requests_per_second,
        "tokens_per_fill": settings.requests_per_second,
        "fill_interval": "1s",
    }
    return {"resources": [message("service.discovery.v3.Resource", name=_RATE, resource=bucket)]}


def _session_cluster() -> Config:
    return session_cluster("session", as_downstream())


def _session_listener() -> Config:
    """Bytes from here on, whatever HTTP they carry: a CONNECT stream through the session's tunnel."""
    proxy = typed(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix="session",
        cluster="tunnel",
        tunneling_config={"hostname": _SESSION},
        **_FOREVER,
    )
    return {"name": "session", "internal_listener": {}, "filter_chains": [{"filters": [proxy]}]}
