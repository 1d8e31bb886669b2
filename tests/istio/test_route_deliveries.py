"""What is written for callers' sidecars and for waypoints is what a real API server takes, by Istio's and the Gateway API's schemas."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hairpin.model.environment import Environment
from hairpin.model.match_text import parse_match
from tests.support.cluster.client import ApiError
from xds_server.delivery.istio.envoyfilter import IstioMesh, SteeredWorkload, plumbing_object, sessions_object
from xds_server.delivery.istio.outbound import outbound_object
from xds_server.delivery.istio.waypoint import MOST_RULES, http_route, virtual_service
from xds_server.generate.steer import Claim
from xds_server.model.cluster import Key

GATEWAY_API = "sigs.k8s.io/gateway-api@v1.6.0"
MESH = IstioMesh()
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
MATCHES = [
    Environment("alice").match,
    parse_match("header x-user^=a.b and path ^/api and method GET and query page=2"),
    parse_match("baggage env=alice or tracestate env^=team- or query debug or header x-debug"),
    parse_match('path ~"/v[0-9]+/.*" and header x-a~"a+"'),
    parse_match("path =/exactly and query q~[a-z]*"),
]


def claims() -> list[Claim]:
    return [
        Claim(session=f"s{number}.shop", created=NOON + dt.timedelta(seconds=number), match=match)
        for number, match in enumerate(MATCHES)
    ]


@pytest.fixture(scope="module")
async def crds(api_server):
    if shutil.which("go") is None:
        pytest.skip("no Go, which fetches the Gateway API's definitions")
    await api_server.install_istio_crds()
    found = subprocess.run(["go", "mod", "download", "-json", GATEWAY_API], check=True, capture_output=True, cwd="/")
    folder = Path(json.loads(found.stdout)["Dir"]) / "config/crd/standard"
    await api_server.client.apply(folder / "gateway.networking.k8s.io_httproutes.yaml")
    await api_server.established()
    return api_server


def service(namespace: str) -> Key:
    return Key(namespace, "checkout")


@pytest.mark.parametrize("delivery", [outbound_object, http_route, virtual_service])
async def test_it_is_taken_and_kept_whole(crds, namespace, delivery):
    document = delivery(service(namespace), 80, claims(), MESH)
    [stored] = await crds.client.apply(document)
    assert _holds(stored["spec"], document["spec"]), stored["spec"]
    empty = delivery(service(namespace), 80, [], MESH)
    await crds.client.apply(empty)


@pytest.mark.parametrize("make", [plumbing_object, lambda w, p, m: sessions_object(w, p, claims(), m)])
async def test_the_targets_filters_are_taken_and_kept_whole(crds, namespace, make):
    workload = SteeredWorkload(kind="statefulset", key=Key(namespace, "db"), selector={"app": "db"})
    document = make(workload, 8080, MESH)
    [stored] = await crds.client.apply(document)
    assert stored["spec"] == document["spec"]


async def test_the_api_server_counts_an_http_routes_rules_as_we_do(crds, namespace):
    many = [Claim(session=f"s{n}.shop", created=NOON, match=Environment(f"s{n}").match) for n in range(MOST_RULES - 1)]
    document = http_route(service(namespace), 80, many, MESH)
    await crds.client.apply(document)
    document["spec"]["rules"].append(document["spec"]["rules"][-1])
    with pytest.raises(ApiError, match="must have at most 16 items"):
        await crds.client.apply(document)


def _holds(stored, wanted) -> bool:
    """Whether what was asked is there; the API server adds defaults."""
    match wanted:
        case dict():
            return all(key in stored and _holds(stored[key], value) for key, value in wanted.items())
        case list():
            return len(stored) == len(wanted) and all(_holds(a, b) for a, b in zip(stored, wanted, strict=True))
        case _:
            return stored == wanted
