"""A sidecar's outbound side: what its application calls goes to the Service named by the request's host.

One listener stands for Istio's captured ports: it takes absolute-form requests and CONNECT as an HTTP proxy does, and raw
HTTP/1.1 and HTTP/2, routed by host. Hosts that the mesh doesn't know pass through (ALLOW_ANY), but not from the agent
(REGISTRY_ONLY): what laptops may reach beyond the mesh, the agent itself judges, and a host inside a CONNECT it doesn't see.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
)
from envoy_data_plane.envoy.config.core.v3 import Address, EnvoyInternalAddress, Http2ProtocolOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener, ListenerInternalListenerConfig
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    Route,
    RouteAction,
    RouteActionUpgradeConfig,
    RouteActionUpgradeConfigConnectConfig,
    RouteConfiguration,
    RouteMatch,
    RouteMatchConnectMatcher,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.clusters.dynamic_forward_proxy.v3 import ClusterConfig as ForwardProxyCluster
from envoy_data_plane.envoy.extensions.common.dynamic_forward_proxy.v3 import DnsCacheConfig
from envoy_data_plane.envoy.extensions.filters.http.dynamic_forward_proxy.v3 import FilterConfig as ForwardProxyFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
    Rds,
)

from xds_server.generate.build import (
    NO_TIMEOUT,
    ads,
    callers_protocol,
    envoy_address,
    http_filter,
    load_assignment,
    network_filter,
    pack,
    router,
    unbounded,
    websocket,
)
from xds_server.generate.tls import upstream_tls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hairpin.model.mesh import SocketAddress

OUTBOUND = "outbound"
PASSTHROUGH = "PassthroughCluster"
UNWRAP = "hairpin|connect"


def cluster_name(service: str, namespace: str, port: int) -> str:
    """A Service's cluster, as Istio names it."""
    return f"outbound|{port}||{service}.{namespace}.svc.cluster.local"


def domains(service: str, namespace: str, port: int, *, default: bool) -> list[str]:
    """Every way to write a Service's host; without a port where this is the Service's default port."""
    hosts = [
        service,
        f"{service}.{namespace}",
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
    ]
    return [name for host in hosts for name in ([host] if default else []) + [f"{host}:{port}"]]


def service_cluster(name: str, identity: str) -> Cluster:
    """A Service's cluster: endpoints by EDS, mutual TLS to its identity."""
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ads(), service_name=name),
        connect_timeout=timedelta(seconds=2),
        circuit_breakers=unbounded(),
        transport_socket=upstream_tls(identity),
        typed_extension_protocol_options=callers_protocol(),
    )


def service_endpoints(name: str, sidecars: Iterable[SocketAddress]) -> ClusterLoadAssignment:
    """Where the Service's sidecars take mutual TLS."""
    return load_assignment(name, *sidecars)


def service_host(name: str, hosts: list[str], *, unwrap: bool) -> VirtualHost:
    """The virtual host of a Service's port."""
    plain = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=name, timeout=NO_TIMEOUT))
    return VirtualHost(name=name, domains=hosts, routes=[*([_connect(UNWRAP)] if unwrap else []), plain])


def passthrough_host() -> VirtualHost:
    """Hosts that are not the mesh's."""
    plain = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=PASSTHROUGH, timeout=NO_TIMEOUT))
    return VirtualHost(name="allow_any", domains=["*"], routes=[_connect(PASSTHROUGH), plain])


def block_all_host() -> VirtualHost:
    """Hosts that are not the mesh's, refused as Istio does it."""
    refusal = Route(match=RouteMatch(prefix="/"), direct_response=DirectResponseAction(status=502))
    return VirtualHost(name="block_all", domains=["*"], routes=[refusal])


def entry_host(name: str) -> VirtualHost:
    """At the entry, every other host is the entry's Service."""
    return VirtualHost(
        name="entry",
        domains=["*"],
        routes=[Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=name, timeout=NO_TIMEOUT))],
    )


def route_configuration(name: str, hosts: Sequence[VirtualHost]) -> RouteConfiguration:
    """The routes of the outbound listener."""
    return RouteConfiguration(name=name, virtual_hosts=list(hosts), validate_clusters=False)


def outbound_listener(address: SocketAddress, *, passthrough: bool = True) -> Listener:
    """The listener that the application's proxy variables name."""
    chain = _chain(OUTBOUND, connect=True, passthrough=passthrough)
    return Listener(name=OUTBOUND, address=envoy_address(address), enable_reuse_port=False, filter_chains=[chain])


def entry_listener(address: SocketAddress) -> Listener:
    """The mesh's entry; no proxy, so no CONNECT."""
    return Listener(
        name="entry",
        address=envoy_address(address),
        enable_reuse_port=False,
        filter_chains=[_chain("entry", connect=False, passthrough=False)],
    )


def unwrap_listener(*, passthrough: bool = True) -> Listener:
    """What comes out of a CONNECT to a Service of the mesh is HTTP again."""
    return Listener(
        name=UNWRAP,
        internal_listener=ListenerInternalListenerConfig(),
        filter_chains=[_chain(OUTBOUND, connect=False, passthrough=passthrough)],
    )


def unwrap_cluster() -> Cluster:
    """The way to `unwrap_listener`."""
    address = Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=UNWRAP))
    endpoints = [LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=Endpoint(address=address))])]
    return Cluster(
        name=UNWRAP,
        connect_timeout=timedelta(seconds=1),
        circuit_breakers=unbounded(),
        load_assignment=ClusterLoadAssignment(cluster_name=UNWRAP, endpoints=endpoints),
    )


def passthrough_cluster() -> Cluster:
    """Names outside of the mesh."""
    # "insecure" asks for no TLS of its own here: what passes through is already what the application made it.
    config = ForwardProxyCluster(dns_cache_config=_dns(), allow_insecure_cluster_options=True)
    return Cluster(
        name=PASSTHROUGH,
        connect_timeout=timedelta(seconds=10),
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        circuit_breakers=unbounded(),
        cluster_type=ClusterCustomClusterType(name="envoy.clusters.dynamic_forward_proxy", typed_config=pack(config)),
        typed_extension_protocol_options=callers_protocol(),
    )


def _dns() -> DnsCacheConfig:
    return DnsCacheConfig(name="passthrough")


def _connect(cluster: str) -> Route:
    terminated = RouteActionUpgradeConfig(
        upgrade_type="CONNECT", connect_config=RouteActionUpgradeConfigConnectConfig()
    )
    action = RouteAction(cluster=cluster, timeout=NO_TIMEOUT, upgrade_configs=[terminated])
    return Route(match=RouteMatch(connect_matcher=RouteMatchConnectMatcher()), route=action)


def _chain(routes: str, *, connect: bool, passthrough: bool) -> FilterChain:
    upgrades = [websocket(), *([HttpConnectionManagerUpgradeConfig(upgrade_type="CONNECT")] if connect else [])]
    forward: list[HttpFilter] = []
    if passthrough:
        forward = [http_filter("envoy.filters.http.dynamic_forward_proxy", ForwardProxyFilter(dns_cache_config=_dns()))]
    manager = HttpConnectionManager(
        stat_prefix=routes,
        codec_type=HttpConnectionManagerCodecType.AUTO,
        stream_idle_timeout=NO_TIMEOUT,
        use_remote_address=False,
        http2_protocol_options=Http2ProtocolOptions(allow_connect=connect),
        upgrade_configs=upgrades,
        http_filters=[*forward, router()],
        rds=Rds(config_source=ads(), route_config_name=routes),
    )
    return FilterChain(filters=[network_filter("envoy.filters.network.http_connection_manager", manager)])
