"""The laptop's gateway: connections of the command's that name their destination by PROXY protocol 2 leave by CONNECT.

Whoever connects says first whereto: the address in the header is the one that the program connected to, TLV 0x02
(AUTHORITY) what to CONNECT to, `10.96.1.2:80` or `name:port`, and TLV 0xE0 the name that the program had looked up for
the address, if any. The agent judges by that name (`agent.judge`), and says in `x-hairpin-refused` why it refuses; the
program's connection is then closed, as a sidecar closes one that leads nowhere. The reason is in the access log.
"""

from __future__ import annotations

from hairpin.envoy.config import Config, json_log, tcp, typed
from hairpin.headers import HOST_HEADER
from local_proxy.egress import FOREVER, LOOPBACK
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


def gateway_listeners(settings: LaptopSettings) -> list[Config]:
    """The listener, if the settings have a port for it."""
    if settings.gateway_port is None:
        return []
    read = typed(
        "envoy.filters.listener.proxy_protocol",
        "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        rules=[_taken(AUTHORITY_TLV, "authority"), _taken(NAME_TLV, "name")],
        disallowed_versions=["V1"],
    )
    return [
        {
            "name": "gateway",
            "address": tcp(LOOPBACK, settings.gateway_port),
            "listener_filters": [read],
            "listener_filters_timeout": _HEADER_SECONDS,
            "filter_chains": [{"filters": [_proxy()]}],
        }
    ]


def _taken(kind: int, key: str) -> Config:
    return {"tlv_type": kind, "on_tlv_present": {"metadata_namespace": _SPACE, "key": key}}


def _proxy() -> Config:
    log = json_log(
        gateway=_AUTHORITY,
        name=_NAME,
        sent="%BYTES_RECEIVED%",
        received="%BYTES_SENT%",
        durationMs="%DURATION%",
        flags="%RESPONSE_FLAGS%",
        answer=_ANSWER,
    )
    return typed(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix="gateway",
        cluster="egress",
        tunneling_config={
            "hostname": _AUTHORITY,
            "headers_to_add": [{"header": {"key": HOST_HEADER, "value": _NAME}}],
            "propagate_response_headers": True,
        },
        max_connect_attempts=_ATTEMPTS,
        access_log=[log],
        **FOREVER,
    )
