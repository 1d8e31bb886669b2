"""A small mesh in Envoy's own messages: one listener, one route, clusters of endpoints, one discovered filter."""

from __future__ import annotations

from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterEdsClusterConfig
from envoy_data_plane.envoy.config.core.v3 import DataSource, ExtensionConfigSource, TypedExtensionConfig
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)

from hairpin.model.mesh import SocketAddress
from tests.support.xds import CDS, ECDS, EDS, LDS, RDS
from xds_server.generate.build import ads, envoy_address, http_filter, load_assignment, network_filter, pack, router
from xds_server.model.resource import Resource

HOST = "127.0.0.1"
LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"


def encoded(type_url: str, name: str, message: betterproto2.Message) -> Resource:
    return Resource.of(type_url, name, bytes(message))


def eds_cluster(name: str, *, connect_timeout: float = 1.0) -> Resource:
    """A cluster whose endpoints come over the same stream; another timeout makes another cluster of it."""
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ads()),
        connect_timeout=timedelta(seconds=connect_timeout),
    )
    return encoded(CDS, name, cluster)


def endpoints_at(name: str, port: int) -> Resource:
    return encoded(EDS, name, load_assignment(name, SocketAddress(host=HOST, port=port)))


def http_listener(name: str, port: int, *, route: str = "r", discovered: str = "e", script: str = "") -> Resource:
    """An HTTP listener with a discovered route and a discovered filter; a script that is no Lua has it refused."""
    config_discovery = ExtensionConfigSource(config_source=ads(), type_urls=[LUA])
    inline = [http_filter("inline", lua(script))] if script else []
    manager = HttpConnectionManager(
        stat_prefix=name,
        rds=Rds(config_source=ads(), route_config_name=route),
        http_filters=[*inline, HttpFilter(name=discovered, config_discovery=config_discovery), router()],
    )
    return encoded(
        LDS,
        name,
        Listener(
            name=name,
            address=envoy_address(SocketAddress(host=HOST, port=port)),
            filter_chains=[
                FilterChain(filters=[network_filter("envoy.filters.network.http_connection_manager", manager)])
            ],
        ),
    )


def route_to(cluster: str, *, name: str = "r") -> Resource:
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=cluster))
    host = VirtualHost(name="all", domains=["*"], routes=[route])
    return encoded(RDS, name, RouteConfiguration(name=name, virtual_hosts=[host]))


def lua(script: str) -> Lua:
    return Lua(default_source_code=DataSource(inline_string=script))


def marking_filter(value: object, *, name: str = "e") -> Resource:
    """A filter that sets the response header `x-filter`."""
    script = f"function envoy_on_response(handle) handle:headers():replace('x-filter', '{value}') end"
    return encoded(ECDS, name, TypedExtensionConfig(name=name, typed_config=pack(lua(script))))
