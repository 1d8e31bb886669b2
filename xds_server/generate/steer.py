"""Steering: from a target's claims to neutral parts of Envoy configuration. Pure.

The parts are two, because they change at different times:

* *plumbing*, the same for any sessions: three filters, three clusters, six routes. Putting it in or taking it out changes
  the listener, and a changed listener drains its connections;
* *the match filters*, which the plumbing's first two filters discover (ECDS): one says which session takes a request, the
  other which gets a copy (`verdict`). Sessions come and go by these resources alone.

The third filter only has the route chosen anew; routes match on the verdicts, which no client can forge. A taken request's
route goes to [agent, the app itself] with one retry, and the agent vouches for an answer that came from the laptop
(`x-hairpin-served: via_upstream`): whatever it does not vouch for ends at the app, whose answers say so (`application`),
lest they be taken for such: the first try is the app's, too, where agents are not healthy. What is only copied goes to the
app (`mirror`).

Only extensions that Istio's own proxy has: `tests/contract` holds them against its list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterLbPolicy,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import Metadata, TypedExtensionConfig
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryPriority,
    Route,
    RouteAction,
    RouteMatch,
)
from envoy_data_plane.envoy.extensions.clusters.aggregate.v3 import ClusterConfig as AggregateConfig
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.http.set_filter_state.v3 import Config as SetFilterState
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Struct

from hairpin.headers import SERVED_HEADER, SESSION_HEADER
from hairpin.model.match import And, Match, Not
from hairpin.model.overlap import Relation, relation
from xds_server.generate.build import (
    NO_TIMEOUT,
    callers_protocol,
    http_filter,
    load_assignment,
    pack,
    set_header,
    unbounded,
)
from xds_server.generate.mirror import copies_cluster, mirror_routes, with_copy
from xds_server.generate.verdict import COPIED, TAKEN, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envoy_data_plane.envoy.config.core.v3 import TransportSocket

    from hairpin.model.mesh import SocketAddress

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of a request's body that are kept for the fallback: a request is repeated only if all of its body is there."""

IDEMPOTENT = "GET|HEAD|OPTIONS|PUT|DELETE|TRACE"
"""Methods that may be repeated whatever became of the first try (RFC 9110, 9.2.2)."""

NOT_DELIVERED = r"upstream_reset_before_response_started\{remote_connection_failure.*|unclaimed"
"""What the agent writes when no tunnel took the request: it provably did not reach the laptop's process."""

APPLICATION = "application"
"""What is written on the app's answers to requests that were to be steered."""

_METADATA = "hairpin.dev"
"""Of an endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringPoint:
    """A workload's port, as its sidecar sees it."""

    port: int
    """As in the sidecar's own names: in Istio the container's port."""
    app: SocketAddress
    agent_cluster: str
    """The sidecar's cluster for the agent's Service, as Istio names it."""
    agent_transport: TransportSocket | None = None
    """How copies get there: mutual TLS, as that cluster has it."""

    @property
    def app_cluster(self) -> str:
        """The sidecar's own cluster for the app."""
        return f"inbound|{self.port}||"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A session whose requests are to be steered now."""

    session: str
    created: datetime
    match: Match
    mirror: bool = False
    """Whether it gets copies, and takes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Parts for a sidecar, in no delivery's form yet."""

    clusters: tuple[Cluster, ...]
    filters: tuple[HttpFilter, ...]
    """Before the router, in this order."""
    routes: tuple[Route, ...]
    """Before the app's own, in this order."""
    match_filters: tuple[TypedExtensionConfig, ...]
    """The one part that depends on the claims."""


def match_filter_name(port: int) -> str:
    """The name of the filter that says who takes a request."""
    return TAKEN.filter_name(port)


def steer(point: SteeringPoint, claims: Sequence[Claim]) -> Steering:
    """Everything that steering needs at one port of one workload."""
    return Steering(
        clusters=clusters(point),
        filters=filters(point),
        routes=routes(point),
        match_filters=match_filters(point, claims),
    )


def match_filters(point: SteeringPoint, claims: Sequence[Claim]) -> tuple[TypedExtensionConfig, TypedExtensionConfig]:
    """The filters that say who takes a request, and who gets a copy of it."""
    return _match_filter(TAKEN, point, claims), _match_filter(COPIED, point, claims)


def _match_filter(verdict: Verdict, point: SteeringPoint, claims: Sequence[Claim]) -> TypedExtensionConfig:
    """One mode's filter: the policies' names are their sessions'.

    RBAC reports the first policy by name that matches; so that the earlier claim wins whatever its name, a later one leaves
    out the requests of those before it that it may overlap.
    """
    found = {claim.session: claim.match for claim in disjoint(claims) if claim.mirror is (verdict is COPIED)}
    return verdict.resource(point.port, found)


def disjoint(claims: Sequence[Claim]) -> list[Claim]:
    """The claims by age, each without the requests of those before it in its mode: what is one's is nobody else's."""
    ordered = sorted(claims, key=lambda claim: (claim.created, claim.session))
    return [replace(claim, match=_remaining(claim, ordered[:index])) for index, claim in enumerate(ordered)]


def _remaining(claim: Claim, earlier: Sequence[Claim]) -> Match:
    """What is left of a claim's requests."""
    taken = [
        other.match
        for other in earlier
        if other.mirror is claim.mirror and relation(claim.match, other.match) is not Relation.DISJOINT
    ]
    return And((claim.match, *(Not(match) for match in taken))) if taken else claim.match


def filters(point: SteeringPoint) -> tuple[HttpFilter, ...]:
    """The filters that find the sessions, discovered, and the one that has the route chosen by them."""
    # Cheaper than a Lua filter that does so only for a match: 3 % of an unmatched request's way through the mesh.
    chosen_anew = SetFilterState(clear_route_cache=True)
    return TAKEN.discovered(point.port), COPIED.discovered(point.port), http_filter("hairpin.steer", chosen_anew)


def clusters(point: SteeringPoint) -> tuple[Cluster, ...]:
    """The app itself, the aggregate of [agent, app], and the agent for copies."""
    served = Metadata(filter_metadata={_METADATA: Struct.from_dict({"served": APPLICATION})})
    local = Cluster(
        name=f"hairpin|local|{point.port}",
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        circuit_breakers=unbounded(),
        load_assignment=load_assignment(f"hairpin|local|{point.port}", point.app, metadata=served),
        typed_extension_protocol_options=callers_protocol(),
    )
    # Envoy passes a try's answer through the filters of the route's cluster, whichever member it came from.
    steered = replace(
        in_turn(f"hairpin|{point.port}", point.agent_cluster, local.name),
        typed_extension_protocol_options=callers_protocol(_served_by()),
    )
    return (
        local,
        steered,
        copies_cluster(point.port, point.agent_cluster, point.agent_transport),
    )


def _served_by() -> HttpFilter:
    """Marks the app's answers as such: the route would repeat a GET whose answer nobody vouches for."""
    said = set_header(SERVED_HEADER, f"%UPSTREAM_METADATA({_METADATA}:served)%")
    mutations = Mutations(response_mutations=[HeaderMutation(append=said)])
    return http_filter("envoy.filters.http.header_mutation", HeaderMutationFilter(mutations=mutations))


def in_turn(name: str, *members: str) -> Cluster:
    """The aggregate of some clusters: the first, and for a retry the next."""
    config = AggregateConfig(clusters=list(members))
    return Cluster(
        name=name,
        connect_timeout=timedelta(seconds=1),
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        circuit_breakers=unbounded(),
        cluster_type=ClusterCustomClusterType(name="envoy.clusters.aggregate", typed_config=pack(config)),
    )


def routes(point: SteeringPoint) -> tuple[Route, ...]:
    """Whatever the match filters have found a session for: what is taken and copied, only taken, only copied."""
    match = RouteMatch(prefix="/", dynamic_metadata=[TAKEN.found])
    taken = fail_open_routes("hairpin", match, f"hairpin|{point.port}", TAKEN.session)
    copied = (with_copy(route, point.port) for route in taken)
    return *copied, *taken, *mirror_routes(point.port, point.app_cluster)


def fail_open_routes(name: str, match: RouteMatch, cluster: str, session: str) -> tuple[Route, Route]:
    """Idempotent requests fall back on whatever is unvouched; the rest only when provably not delivered.

    Args:
        name: what the two routes' names begin with.
        match: the requests to be steered.
        cluster: an aggregate of [agent, where the requests go without us].
        session: what the agent is told, a literal or a format string.
    """
    idempotent = HeaderMatcher(name=":method", string_match=StringMatcher(safe_regex=RegexMatcher(regex=IDEMPOTENT)))
    unvouched = HeaderMatcher(
        name=SERVED_HEADER,
        string_match=StringMatcher(safe_regex=RegexMatcher(regex=f"via_upstream|{APPLICATION}")),
        invert_match=True,
        treat_missing_header_as_empty=True,
    )
    undelivered = HeaderMatcher(
        name=SERVED_HEADER, string_match=StringMatcher(safe_regex=RegexMatcher(regex=NOT_DELIVERED))
    )
    # The agent marks what may have been delivered so that nobody else repeats it (envoy-ratelimited): here that is wanted.
    again = "connect-failure,refused-stream,reset,retriable-headers,envoy-ratelimited"
    once = "connect-failure,refused-stream,retriable-headers"
    repeatable = replace(match, headers=[*match.headers, idempotent])
    return (
        _route(f"{name}-again", repeatable, cluster=cluster, session=session, retry_on=again, retriable=unvouched),
        _route(f"{name}-once", match, cluster=cluster, session=session, retry_on=once, retriable=undelivered),
    )


def _route(
    name: str, match: RouteMatch, *, cluster: str, session: str, retry_on: str, retriable: HeaderMatcher
) -> Route:
    # The default back-off waits up to 25 ms before each fallback.
    at_once = RetryPolicyRetryBackOff(base_interval=timedelta(milliseconds=1), max_interval=timedelta(milliseconds=1))
    priorities = RetryPolicyRetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=pack(PreviousPrioritiesConfig(update_frequency=1)),
    )
    return Route(
        name=name,
        match=match,
        route=RouteAction(
            cluster=cluster,
            timeout=NO_TIMEOUT,
            idle_timeout=NO_TIMEOUT,
            retry_policy=RetryPolicy(
                retry_on=retry_on,
                num_retries=1,
                retry_back_off=at_once,
                retriable_headers=[retriable],
                retry_priority=priorities,
            ),
        ),
        request_headers_to_add=[set_header(SESSION_HEADER, session)],
        request_body_buffer_limit=BODY_LIMIT,
    )
