"""What steering puts into a sidecar exists in Istio's own proxy, whose build leaves many of Envoy's extensions out.

An unknown type has the whole inbound listener refused: running pods keep the old one, a new pod gets none. The list is that
of istio/proxy.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from hairpin.model.match import Header, StringKind, StringPredicate
from hairpin.model.mesh import SocketAddress
from xds_server.delivery.istio.envoyfilter import IstioMesh
from xds_server.generate.steer import Claim, Steering, SteeringPoint, steer

LIST = Path(__file__).parent / "istio-proxy-extensions.txt"
ENVOY = "type.googleapis.com/envoy."

EXTENSIONS = {
    "extensions.filters.http.rbac.v3.RBAC": "envoy.filters.http.rbac",
    "extensions.filters.http.set_filter_state.v3.Config": "envoy.filters.http.set_filter_state",
    "extensions.filters.http.header_mutation.v3.HeaderMutation": "envoy.filters.http.header_mutation",
    "extensions.filters.http.upstream_codec.v3.UpstreamCodec": "envoy.filters.http.upstream_codec",
    "extensions.clusters.aggregate.v3.ClusterConfig": "envoy.clusters.aggregate",
    "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig": "envoy.retry_priorities.previous_priorities",
    "extensions.transport_sockets.tls.v3.UpstreamTlsContext": "envoy.transport_sockets.tls",
    "extensions.upstreams.http.v3.HttpProtocolOptions": "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
}
"""Envoy's names of the types that steering may use."""

OPTIONS = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "envoy.filters.http.upstream_codec"}
"""What every cluster has, compiled in always: not extensions that a build can leave out."""


def steering() -> Steering:
    point = SteeringPoint(
        port=8080,
        app=SocketAddress("127.0.0.1", 8080),
        agent_cluster="outbound|80||agent",
        agent_transport=IstioMesh().agent_transport("shop"),
    )
    match = Header("x-env", StringPredicate(StringKind.REGEX, "a.*"))
    return steer(point, [Claim(session="s", created=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), match=match)])


def types_in(document: object) -> set[str]:
    match document:
        case dict():
            own = {document["@type"]} if isinstance(document.get("@type"), str) else set()
            return own.union(*(types_in(value) for value in document.values()))
        case list():
            return set().union(*(types_in(value) for value in document))
        case _:
            return set()


def test_only_extensions_that_istios_proxy_has():
    known = {line.strip() for line in LIST.read_text().splitlines() if line and not line.startswith("#")}
    parts = steering()
    messages = [*parts.clusters, *parts.filters, *parts.routes, *parts.match_filters]
    used = set().union(*(types_in(json.loads(message.to_json())) for message in messages))
    assert used, "no extension found: the test looks in the wrong place"
    for type_url in used:
        name = EXTENSIONS.get(type_url.removeprefix(ENVOY))
        assert name is not None, f"{type_url} is new: find its extension's name and add it here"
        assert name in known or name in OPTIONS, f"istio's proxy lacks {name}"


@pytest.mark.parametrize("name", sorted(set(EXTENSIONS.values()) - OPTIONS))
def test_the_list_names_what_we_rely_on(name):
    assert name in LIST.read_text().split()
