"""Short forms of what every resource is made of, typed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import CircuitBreakers, CircuitBreakersThresholds
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Metadata,
    TransportSocket,
)
from envoy_data_plane.envoy.config.core.v3 import (
    SocketAddress as EnvoySocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)
from envoy_data_plane.google.protobuf import Any

if TYPE_CHECKING:
    import betterproto2

    from hairpin.model.mesh import SocketAddress

PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
NO_TIMEOUT = timedelta()
UNBOUNDED = 100_000
"""Circuit breakers that never open: the default of 3 parallel retries lost 39,000 requests in one trial."""


def pack(message: betterproto2.Message) -> Any:
    """The message as an Any."""
    return Any.pack(message)


def http_filter(name: str, config: betterproto2.Message) -> HttpFilter:
    """An HTTP filter with its configuration."""
    return HttpFilter(name=name, typed_config=pack(config))


def network_filter(name: str, config: betterproto2.Message) -> Filter:
    """A network filter with its configuration."""
    return Filter(name=name, typed_config=pack(config))


def transport_socket(name: str, config: betterproto2.Message) -> TransportSocket:
    """A transport socket with its configuration."""
    return TransportSocket(name=name, typed_config=pack(config))


def router() -> HttpFilter:
    """The router, the last of every chain. Istio leaves the started-child-span and the like off, too."""
    return http_filter("envoy.filters.http.router", Router())


def websocket() -> HttpConnectionManagerUpgradeConfig:
    """WebSocket upgrades, as Istio allows them on every connection manager."""
    return HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")


def envoy_address(address: SocketAddress) -> Address:
    """An address, as Envoy has it."""
    return Address(socket_address=EnvoySocketAddress(address=address.host, port_value=address.port))


def ads() -> ConfigSource:
    """This very stream."""
    return ConfigSource(
        ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3, initial_fetch_timeout=NO_TIMEOUT
    )


def load_assignment(name: str, *addresses: SocketAddress, metadata: Metadata | None = None) -> ClusterLoadAssignment:
    """A cluster's endpoints, all in one locality and with the same metadata."""
    endpoints = [
        LbEndpoint(endpoint=Endpoint(address=envoy_address(address)), metadata=metadata) for address in addresses
    ]
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def unbounded() -> CircuitBreakers:
    """No circuit breaking."""
    thresholds = CircuitBreakersThresholds(
        max_connections=UNBOUNDED, max_pending_requests=UNBOUNDED, max_requests=UNBOUNDED, max_retries=UNBOUNDED
    )
    return CircuitBreakers(thresholds=[thresholds])


def set_header(name: str, value: str) -> HeaderValueOption:
    """A header that replaces whatever was there: Envoy's default appends."""
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def callers_protocol(*filters: HttpFilter) -> dict[str, Any]:
    """Upstream in the protocol that the caller speaks: HTTP/1.1, HTTP/2, gRPC and WebSocket stay what they are.

    Args:
        filters: what each try passes, before it goes out, and its answer, before the router judges it.
    """
    same = HttpProtocolOptionsUseDownstreamHttpConfig(
        http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=Http2ProtocolOptions()
    )
    options = HttpProtocolOptions(use_downstream_protocol_config=same)
    if filters:
        options.http_filters = [*filters, http_filter("envoy.filters.http.upstream_codec", UpstreamCodec())]
    return {PROTOCOL_OPTIONS: pack(options)}
