"""A sidecar's inbound side: mutual TLS in front of the application, as Istio has it, with the routes in the listener."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.rbac.v3 import (
    Permission,
    Policy,
    Principal,
    PrincipalAuthenticated,
    PrincipalSet,
    RbacAction,
)
from envoy_data_plane.envoy.config.rbac.v3 import (
    Rbac as RbacRules,
)
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerSetCurrentClientCertDetails,
)
from envoy_data_plane.envoy.extensions.filters.network.rbac.v3 import Rbac as RbacFilter
from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 import TcpProxy
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from xds_server.generate.build import (
    NO_TIMEOUT,
    callers_protocol,
    envoy_address,
    load_assignment,
    network_filter,
    router,
    unbounded,
    websocket,
)
from xds_server.generate.tls import downstream_tls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hairpin.model.mesh import SocketAddress
    from xds_server.generate.steer import Steering


def inbound_cluster(port: int, app: SocketAddress) -> Cluster:
    """The application on the sidecar's loopback."""
    name = f"inbound|{port}||"
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=10),
        circuit_breakers=unbounded(),
        load_assignment=load_assignment(name, app),
        typed_extension_protocol_options=callers_protocol(),
    )


def inbound_listener(port: int, address: SocketAddress, *, steering: Steering | None = None) -> Listener:
    """The listener of one port that speaks HTTP."""
    name = f"inbound|{port}||"
    default = Route(
        name="default",
        match=RouteMatch(prefix="/"),
        route=RouteAction(cluster=name, timeout=NO_TIMEOUT, idle_timeout=NO_TIMEOUT),
    )
    routes = [*(steering.routes if steering else ()), default]
    manager = HttpConnectionManager(
        stat_prefix=f"inbound_{port}",
        codec_type=HttpConnectionManagerCodecType.AUTO,
        stream_idle_timeout=NO_TIMEOUT,
        forward_client_cert_details=HttpConnectionManagerForwardClientCertDetails.APPEND_FORWARD,
        set_current_client_cert_details=HttpConnectionManagerSetCurrentClientCertDetails(
            subject=True, dns=True, uri=True
        ),
        upgrade_configs=[websocket()],
        http_filters=[*(steering.filters if steering else ()), router()],
        route_config=RouteConfiguration(
            name=name,
            validate_clusters=False,
            virtual_hosts=[VirtualHost(name=f"inbound|http|{port}", domains=["*"], routes=routes)],
        ),
    )
    chain = FilterChain(
        transport_socket=downstream_tls(),
        filters=[network_filter("envoy.filters.network.http_connection_manager", manager)],
    )
    return Listener(
        name=f"inbound_{port}", address=envoy_address(address), enable_reuse_port=False, filter_chains=[chain]
    )


def inbound_tcp_listener(port: int, address: SocketAddress, *, allowed: Sequence[str]) -> Listener:
    """The listener of a port whose bytes are passed on as they are, for clients of these SPIFFE IDs and no others.

    Istio does the same for a port named `tcp-…` with an AuthorizationPolicy.
    """
    proxy = TcpProxy(stat_prefix=f"inbound_{port}", cluster=f"inbound|{port}||", idle_timeout=NO_TIMEOUT)
    chain = FilterChain(
        transport_socket=downstream_tls(),
        filters=[authorization(allowed), network_filter("envoy.filters.network.tcp_proxy", proxy)],
    )
    return Listener(
        name=f"inbound_{port}", address=envoy_address(address), enable_reuse_port=False, filter_chains=[chain]
    )


def authorization(allowed: Sequence[str]) -> Filter:
    """Istio's AuthorizationPolicy in small."""
    clients = [
        Principal(authenticated=PrincipalAuthenticated(principal_name=StringMatcher(exact=identity)))
        for identity in allowed
    ]
    policy = Policy(permissions=[Permission(any=True)], principals=[Principal(or_ids=PrincipalSet(ids=clients))])
    rules = RbacRules(action=RbacAction.ALLOW, policies={"clients": policy} if clients else {})
    return network_filter("envoy.filters.network.rbac", RbacFilter(rules=rules, stat_prefix="authorization"))
