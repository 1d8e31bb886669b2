"""Copies: what has the laptop see requests that the application answers, as it would without us. Pure.

Envoy copies a request while it streams, and a copy that is not taken fast enough holds the original up: with a frozen peer, for
ever (seen with Envoy 1.40: an upload of 50 MB to a living application never ended). So copies have a cluster of their own:

* HTTP/1.1, a connection each: what a peer does not take piles up in that connection alone, to `BUFFER` bytes, and a connection
  that stays full for `PATIENCE` is cut, with its copy;
* at most `AT_ONCE` copies are under way, retries none: further ones are left out, and the requests are not;
* the agent takes a copy whole before it hands it on, so that neither a laptop nor a process can be slow here.

Only the copy bears what the agent has to know: whose it is, the caller's protocol, and `x-forwarded-for`, which Envoy changes
in copies. The original and its answer get no header and lose none.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import Http1ProtocolOptions
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteActionMaxStreamDuration,
    RouteActionRequestMirrorPolicy,
    RouteMatch,
    RouteMatchGrpcRouteMatchOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)

from hairpin.headers import COPY_HEADER, FORWARDED_HEADER, SESSION_HEADER
from xds_server.generate.build import NO_TIMEOUT, PROTOCOL_OPTIONS, UNBOUNDED, ads, pack, set_header
from xds_server.generate.verdict import COPIED

if TYPE_CHECKING:
    from envoy_data_plane.envoy.config.core.v3 import TransportSocket

AT_ONCE = 64
"""Copies under way from one port of one pod; each may wait at a breakpoint."""
BUFFER = 1 << 20
"""Bytes of a copy that its connection holds when the agent takes none."""
PATIENCE = timedelta(milliseconds=50)
"""How long it may be full: by so much a large request can be held up, once, and only by an agent that takes nothing."""
CONNECT = timedelta(milliseconds=500)
"""To the agent's sidecar, inside the cluster."""
KNOWN = timedelta(seconds=5)
"""How long a proxy that starts waits to be told where the agent is."""


def copies_name(port: int) -> str:
    """The cluster of a port's copies."""
    return f"hairpin|copies|{port}"


def copies_service(agent_cluster: str, port: int) -> str:
    """By what name its endpoints are asked for: in Istio's form, a subset of the agent's Service that selects nothing away.

    It is this cluster's own: Envoy does not ask anew for a name that another cluster has asked for before.
    """
    direction, service_port, _, host = agent_cluster.split("|")
    return f"{direction}|{service_port}|copies-{port}|{host}"


def copies_cluster(port: int, agent_cluster: str, transport: TransportSocket | None) -> Cluster:
    """The agent, for copies alone."""
    bounds = CircuitBreakersThresholds(
        max_connections=UNBOUNDED, max_pending_requests=AT_ONCE, max_requests=AT_ONCE, max_retries=0
    )
    # In the caller's protocol it would be HTTP/1.1 too: to Envoy a copy has no caller.
    http1 = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())
    )
    return Cluster(
        name=copies_name(port),
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(
            # A proxy does not start before it knows its clusters' endpoints: for copies it need not wait for ever.
            eds_config=replace(ads(), initial_fetch_timeout=KNOWN),
            service_name=copies_service(agent_cluster, port),
        ),
        connect_timeout=CONNECT,
        per_connection_buffer_limit_bytes=BUFFER,
        per_connection_buffer_high_watermark_timeout=PATIENCE,
        circuit_breakers=CircuitBreakers(thresholds=[bounds]),
        transport_socket=transport,
        typed_extension_protocol_options={PROTOCOL_OPTIONS: pack(http1)},
    )


def copy_policy(port: int) -> RouteActionRequestMirrorPolicy:
    """A copy to the agent, with what it has to know; host and path are the request's own."""
    told = {SESSION_HEADER: COPIED.session, COPY_HEADER: "%PROTOCOL%", FORWARDED_HEADER: "%REQ(X-FORWARDED-FOR)%"}
    return RouteActionRequestMirrorPolicy(
        cluster=copies_name(port),
        disable_shadow_host_suffix_append=True,
        request_headers_mutations=[HeaderMutation(append=set_header(name, value)) for name, value in told.items()],
    )


def copied(match: RouteMatch) -> RouteMatch:
    """Those of these requests that some session gets in copy: not WebSockets, which have no end to copy."""
    no_upgrade = HeaderMatcher(name="upgrade", present_match=False)
    return replace(
        match, dynamic_metadata=[*match.dynamic_metadata, COPIED.found], headers=[*match.headers, no_upgrade]
    )


def mirror_routes(port: int, app_cluster: str) -> tuple[Route, Route]:
    """What is copied and nobody takes: to the application, as Istio's own inbound route has it.

    That repeats what the application's connection lost before the request was on it, but for gRPC.
    """
    match = copied(RouteMatch(prefix="/"))
    grpc = replace(match, grpc=RouteMatchGrpcRouteMatchOptions())
    action = RouteAction(
        cluster=app_cluster,
        timeout=NO_TIMEOUT,
        idle_timeout=NO_TIMEOUT,
        max_stream_duration=RouteActionMaxStreamDuration(
            max_stream_duration=NO_TIMEOUT, grpc_timeout_header_max=NO_TIMEOUT
        ),
        request_mirror_policies=[copy_policy(port)],
    )
    repeated = replace(action, retry_policy=RetryPolicy(retry_on="reset-before-request", num_retries=2))
    # The limit is the copy's too, while it has no connection yet.
    return (
        Route(name="hairpin-mirror-grpc", match=grpc, route=action, request_body_buffer_limit=BUFFER),
        Route(name="hairpin-mirror", match=match, route=repeated, request_body_buffer_limit=BUFFER),
    )


def with_copy(route: Route, port: int) -> Route:
    """A route of requests that a laptop takes, for those that another session gets in copy."""
    action = replace(route.route or RouteAction(), request_mirror_policies=[copy_policy(port)])
    return replace(route, name=f"{route.name}-copied", match=copied(route.match or RouteMatch()), route=action)
