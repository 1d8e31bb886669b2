"""The laptop's gateway: connections of the command's that name their destination by PROXY protocol 2 leave by CONNECT.

Whoever connects says first whereto: the address in the header is the one that the program connected to, TLV 0x02
(AUTHORITY) what to CONNECT to, `10.96.1.2:80` or `name:port`, and TLV 0xE0 the name that the program had looked up for
the address, if any. The agent judges by that name (`agent.judge`), and says in `x-hairpin-refused` why it refuses; the
program's connection is then closed, as a sidecar closes one that leads nowhere. The reason is in the access log.
"""

from __future__ import annotations

from hairpin.envoy.config import (
    Config,
    as_downstream,
    http_inspector,
    inspected,
    json_log,
    pipe,
    static_cluster,
    tcp,
    typed,
)
from hairpin.headers import HOST_HEADER
from local_proxy.egress import FOREVER, LOOPBACK, plain_cluster, request_log
from local_proxy.inject import AUTHORITY_STATE, HTTP1, INSPECTION, NAME_STATE, filter_state, http_chain
from local_proxy.laptop_settings import LaptopSettings

AUTHORITY_TLV = 0x02
NAME_TLV = 0xE0
_SPACE = "hairpin.gateway"
_AUTHORITY = f"%DYNAMIC_METADATA({_SPACE}:authority)%"
_NAME = f"%DYNAMIC_METADATA({_SPACE}:name)%"
_ANSWER = "%FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:TYPED)%"
_HEADER_SECONDS = "5s"
"""How long a connection may take to name its destination; it is this machine's own supervisor that does."""
_ATTEMPTS = 3
"""A replica of the agent that is gone is passed over."""
_IDLE = "2s"
"""How long a connection of HTTP is kept between two requests, also once the program's has ended: Envoy's pool is not told.
Servers wait longer, so none closes one that is about to be used.
"""
ANSWERS = "gateway-answers"
"""The cluster that answers are told to."""
HTTP = "gateway-http"
"""The internal listener behind the gateway for connections that are HTTP, and its cluster."""


def gateway_listeners(settings: LaptopSettings) -> list[Config]:
    """The listener, if the settings have a port for it, and an internal one behind it where it takes HTTP apart."""
    if settings.gateway_port is None:
        return []
    read = typed(
        "envoy.filters.listener.proxy_protocol",
        "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        rules=[_taken(AUTHORITY_TLV, "authority"), _taken(NAME_TLV, "name")],
        disallowed_versions=["V1"],
    )
    answers = () if settings.answers is None else (_answers(),)
    bytes_only = {"filters": [_proxy("gateway", _AUTHORITY, _NAME, answers=answers)]}
    gateway = {"name": "gateway", "address": tcp(LOOPBACK, settings.gateway_port)}
    if settings.inject is None:
        return [
            gateway
            | {
                "listener_filters": [read],
                "listener_filters_timeout": _HEADER_SECONDS,
                "filter_chains": [bytes_only],
            }
        ]
    # Each request has its line; a connection's says why it led nowhere.
    failed: Config = {"response_flag_filter": {}}
    tunnel = _proxy(HTTP, filter_state(AUTHORITY_STATE), filter_state(NAME_STATE), failed)
    return [
        gateway
        | {
            **inspected(read, http_inspector(), at_most=INSPECTION),
            "filter_chains": [http_chain(settings.inject, HTTP, _AUTHORITY, _NAME, request_log())],
            "default_filter_chain": bytes_only,
        },
        {"name": HTTP, "internal_listener": {}, "filter_chains": [{"filters": [tunnel]}]},
    ]


def gateway_clusters(settings: LaptopSettings) -> list[Config]:
    """Where answers go, if they do. The internal listener, where there is one: it gives each connection a CONNECT of its own."""
    if settings.gateway_port is None:
        return []
    if settings.answers is not None:
        return [static_cluster(ANSWERS, pipe(settings.answers))]
    if settings.inject is None:
        return []
    protocols = as_downstream(http1=HTTP1, common_http_protocol_options={"idle_timeout": _IDLE})
    return [
        plain_cluster(HTTP, typed_extension_protocol_options=protocols, connection_pool_per_downstream_connection=True)
    ]


def _taken(kind: int, key: str) -> Config:
    return {"tlv_type": kind, "on_tlv_present": {"metadata_namespace": _SPACE, "key": key}}


def _answers() -> Config:
    """Says of each connection, unbuffered, that its CONNECT was answered with 200, or why it ends: see `intercept.answers`."""
    record = {"from": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "answer": _ANSWER, "flags": "%RESPONSE_FLAGS%"}
    return typed(
        "envoy.access_loggers.fluentd",
        "extensions.access_loggers.fluentd.v3.FluentdAccessLogConfig",
        cluster=ANSWERS,
        tag="hairpin",
        stat_prefix=ANSWERS,
        buffer_size_bytes=1,
        record=record,
    )


def _proxy(prefix: str, authority: str, name: str, *told: Config, answers: tuple[Config, ...] = ()) -> Config:
    """A CONNECT for each connection.

    Args:
        prefix: of its statistics.
        authority: a format string.
        name: a format string.
        told: filters which connections have a line.
        answers: access logs that are told of a connection also when it is made.
    """
    log = json_log(
        {"log_type_filter": {"types": ["TcpConnectionEnd"]}},
        *told,
        gateway=authority,
        name=name,
        sent="%BYTES_RECEIVED%",
        received="%BYTES_SENT%",
        durationMs="%DURATION%",
        flags="%RESPONSE_FLAGS%",
        answer=_ANSWER,
    )
    return typed(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=prefix,
        cluster="egress",
        tunneling_config={
            "hostname": authority,
            "headers_to_add": [{"header": {"key": HOST_HEADER, "value": name}}],
            "propagate_response_headers": True,
        },
        max_connect_attempts=_ATTEMPTS,
        access_log=[log, *answers],
        access_log_options={"flush_access_log_on_connected": bool(answers)},
        **FOREVER,
    )
