"""Steering by routes: callers' sidecars and waypoints."""

from __future__ import annotations

import datetime as dt

import pytest

from hairpin.errors import InvalidFieldError
from hairpin.model.match import And, Header, Or
from hairpin.model.match_text import parse_match
from xds_server.delivery.istio.envoyfilter import IstioMesh
from xds_server.delivery.istio.outbound import outbound_object, route_match
from xds_server.delivery.istio.route_match import Condition, alternatives
from xds_server.delivery.istio.waypoint import http_route, virtual_service
from xds_server.generate.steer import Claim
from xds_server.model.cluster import Key

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
CHECKOUT = Key("shop", "checkout")
MESH = IstioMesh()


def claim(name: str, match: str, seconds: int = 0) -> Claim:
    return Claim(session=f"{name}.shop", created=NOON + dt.timedelta(seconds=seconds), match=parse_match(match))


def values(document, apply_to, operation):
    patches = [p["patch"] for p in document["spec"]["configPatches"] if p["applyTo"] == apply_to]
    return [p["value"] for p in patches if p["operation"] == operation]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("header x-env=alice", [[Condition("header", "x-env", "exact", "alice")]]),
        ("header x-env", [[Condition("header", "x-env", "present")]]),
        ("header x-env^=a.b", [[Condition("header", "x-env", "regex", r"a\.b.*")]]),
        (
            "path ^/api and method GET",
            [[Condition("path", "", "regex", "/api.*"), Condition("method", "", "exact", "GET")]],
        ),
        ("header x-a=1 or query q", [[Condition("header", "x-a", "exact", "1")], [Condition("query", "q", "present")]]),
    ],
)
def test_conditions(text, expected):
    assert [list(conditions) for conditions in alternatives(parse_match(text))] == expected


def test_a_member_of_baggage_is_an_expression_for_the_whole_header():
    [[condition]] = alternatives(parse_match("baggage env=alice"))
    assert (condition.subject, condition.name, condition.operator) == ("header", "baggage", "regex")
    assert "env" in condition.value and "alice" in condition.value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("not header x-a=1", "`not`"),
        ("header x-a=1 and not header x-b=1", "`not`"),
        ("header x-a=1 and (header x-b=1 or header x-c=1)", "`or` inside `and`"),
        ("header x-a^=1 and header x-a=12", "two conditions on header x-a"),
        ("baggage a=1 and baggage b=2", "two conditions on header baggage"),
        ("path ^/a and path ^/ab", "two conditions on path"),
    ],
)
@pytest.mark.parametrize("delivery", [outbound_object, http_route, virtual_service])
def test_what_no_route_can_say_is_refused_by_name(delivery, text, what):
    with pytest.raises(InvalidFieldError, match=f"spec.match: .*{what}.*delivery: inbound"):
        delivery(CHECKOUT, 80, [claim("alice", text)], MESH)


def test_everything_and_nothing():
    assert alternatives(And(())) == ((),)
    assert alternatives(Or(())) == ()
    assert [
        r["name"] for r in values(_object(Claim(session="a", created=NOON, match=Or(()))), "HTTP_ROUTE", "INSERT_FIRST")
    ] == []


def _object(*claims):
    return outbound_object(CHECKOUT, 80, claims, MESH)


class TestCallersSidecars:
    def test_the_earlier_session_is_judged_first(self):
        found = values(_object(claim("a", "header x-a", 5), claim("z", "header x-b", 1)), "HTTP_ROUTE", "INSERT_FIRST")
        # istiod puts each of them first, one after the other.
        names = [route["name"] for route in reversed(found)]
        assert names == [f"hairpin-{s}.shop-{kind}" for s in ("z", "a") for kind in ("again", "once")]

    def test_a_route_tells_the_agent_whose_it_is(self):
        for route in values(_object(claim("alice", "header x-env=alice")), "HTTP_ROUTE", "INSERT_FIRST"):
            [header] = route["requestHeadersToAdd"]
            assert header["header"] == {"key": "x-hairpin-session", "value": "alice.shop"}

    def test_it_falls_back_to_the_service(self):
        [aggregate] = values(_object(), "CLUSTER", "ADD")
        assert aggregate["clusterType"]["typedConfig"]["clusters"] == [
            "outbound|8080||hairpin-agent.shop.svc.cluster.local",
            "outbound|80||checkout.shop.svc.cluster.local",
        ]

    def test_it_patches_callers_routes_to_this_service_alone(self):
        document = _object(claim("alice", "header x-env=alice"))
        assert "workloadSelector" not in document["spec"]
        for patch in document["spec"]["configPatches"]:
            assert patch["match"]["context"] == "SIDECAR_OUTBOUND"
            if patch["applyTo"] == "HTTP_ROUTE":
                assert patch["match"]["routeConfiguration"] == {"vhost": {"name": "checkout.shop.svc.cluster.local:80"}}

    def test_envoys_form(self):
        [conditions] = alternatives(parse_match("header x-a=1 and path =/a and query q and method GET"))
        assert route_match(conditions).to_dict() == {
            "path": "/a",
            "headers": [
                {"name": "x-a", "stringMatch": {"exact": "1"}},
                {"name": ":method", "stringMatch": {"exact": "GET"}},
            ],
            "queryParameters": [{"name": "q", "presentMatch": True}],
        }


class TestWaypoints:
    def test_http_route(self):
        document = http_route(CHECKOUT, 80, [claim("alice", "header x-env=alice and path ^/api")], MESH)
        assert document["metadata"]["name"] == "hairpin-waypoint-service-checkout-80"
        assert document["spec"]["parentRefs"] == [{"group": "", "kind": "Service", "name": "checkout", "port": 80}]
        steered, own = document["spec"]["rules"]
        assert steered == {
            "matches": [
                {
                    "headers": [{"type": "Exact", "name": "x-env", "value": "alice"}],
                    "path": {"type": "RegularExpression", "value": "/api.*"},
                }
            ],
            "filters": [
                {
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "x-hairpin-session", "value": "alice.shop"}]},
                }
            ],
            "backendRefs": [{"name": "hairpin-agent", "port": 8080}],
        }
        assert own == {"backendRefs": [{"name": "checkout", "port": 80}]}

    def test_an_http_route_takes_fifteen_sessions(self):
        claims = [claim(f"s{n}", f"header x-env=s{n}", n) for n in range(16)]
        assert len(http_route(CHECKOUT, 80, claims[:15], MESH)["spec"]["rules"]) == 16
        with pytest.raises(InvalidFieldError, match="15 that an HTTPRoute takes"):
            http_route(CHECKOUT, 80, claims, MESH)
        assert len(virtual_service(CHECKOUT, 80, claims, MESH)["spec"]["http"]) == 17

    def test_an_alternative_too_many(self):
        many = Or(tuple(Header(f"x-{n}") for n in range(65)))
        with pytest.raises(InvalidFieldError, match="65 alternatives"):
            http_route(CHECKOUT, 80, [Claim(session="a.shop", created=NOON, match=many)], MESH)

    def test_virtual_service(self):
        document = virtual_service(CHECKOUT, 80, [claim("alice", "header x-env and query q and path =/a")], MESH)
        steered, own = document["spec"]["http"]
        [match] = steered["match"]
        assert match == {
            "headers": {"x-env": {}},
            "queryParams": {"q": {"regex": ".*"}},
            "uri": {"exact": "/a"},
            "port": 80,
        }
        assert steered["headers"] == {"request": {"set": {"x-hairpin-session": "alice.shop"}}}
        assert own["route"][0]["destination"] == {"host": "checkout.shop.svc.cluster.local", "port": {"number": 80}}

    @pytest.mark.parametrize("delivery", [http_route, virtual_service])
    def test_without_sessions_all_is_the_services_own(self, delivery):
        spec = delivery(CHECKOUT, 80, [], MESH)["spec"]
        assert len(spec.get("rules") or spec["http"]) == 1
