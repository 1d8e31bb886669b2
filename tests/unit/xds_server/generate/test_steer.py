"""What steering makes of claims."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hairpin.model.environment import Environment
from hairpin.model.match_text import parse_match
from hairpin.model.mesh import SocketAddress
from xds_server.generate.match import permission
from xds_server.generate.steer import Claim, SteeringPoint, match_filters, steer

POINT = SteeringPoint(port=8080, app=SocketAddress("127.0.0.1", 8081), agent_cluster="outbound|80||agent")
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def claim(session: str, seconds: int = 0) -> Claim:
    return Claim(session=session, created=NOON + dt.timedelta(seconds=seconds), match=Environment(session).match)


def policies(claims: list[Claim], *, mirror: bool = False) -> dict[str, object]:
    config = json.loads(match_filters(POINT, claims)[mirror].to_json())["typedConfig"]
    found: dict[str, object] = config.get("shadowRules", {}).get("policies", {})
    return found


def test_without_claims_the_filter_matches_nothing_and_decides_nothing():
    for found in match_filters(POINT, []):
        config = json.loads(found.to_json())["typedConfig"]
        assert "rules" not in config and "shadowRules" not in config


def test_a_policy_bears_its_sessions_name():
    assert sorted(policies([claim("a", 5), claim("z", 1)])) == ["a", "z"]


def test_a_later_claim_leaves_out_what_an_earlier_one_may_match():
    first = Claim(session="z", created=NOON, match=parse_match("header x-a=1"))
    later = Claim(session="a", created=NOON + dt.timedelta(seconds=1), match=parse_match("header x-b=1"))
    found = policies([later, first])
    assert found["z"]["permissions"] == [json.loads(permission(first.match).to_json())]
    left = parse_match("header x-b=1 and not header x-a=1")
    assert found["a"]["permissions"] == [json.loads(permission(left).to_json())]


def test_claims_that_cant_overlap_stand_as_they_are():
    found = policies([claim("alice"), claim("bob", 1)])
    assert found["bob"]["permissions"] == [json.loads(permission(claim("bob").match).to_json())]


@given(st.permutations([claim("a", 1), claim("b", 2), claim("c", 3)]))
def test_the_order_in_which_claims_are_given_makes_no_difference(claims):
    ordered = [claim("a", 1), claim("b", 2), claim("c", 3)]
    assert list(map(bytes, match_filters(POINT, claims))) == list(map(bytes, match_filters(POINT, ordered)))


def test_plumbing_is_the_same_for_any_claims():
    none, some = steer(POINT, []), steer(POINT, [claim("a"), replace(claim("b", 1), mirror=True)])
    assert (none.clusters, none.filters, none.routes) == (some.clusters, some.filters, some.routes)
    assert all(one != other for one, other in zip(none.match_filters, some.match_filters, strict=True))


def test_routes_match_on_metadata_that_no_client_can_write():
    for route in steer(POINT, []).routes:
        assert route.match.dynamic_metadata
        for metadata in route.match.dynamic_metadata:
            assert metadata.filter == "envoy.filters.http.rbac"
            [key] = [segment.key for segment in metadata.path]
            assert key in ("hairpin_shadow_engine_result", "hairpin_mirror_shadow_engine_result")


def test_only_idempotent_requests_are_repeated_after_they_may_have_been_delivered():
    again, once = (route for route in steer(POINT, []).routes if route.name in ("hairpin-again", "hairpin-once"))
    [method] = again.match.headers
    assert "POST" not in method.string_match.safe_regex.regex and "PATCH" not in method.string_match.safe_regex.regex
    assert "reset" in again.route.retry_policy.retry_on.split(",")
    assert "reset" not in once.route.retry_policy.retry_on.split(",")
    # What the agent says may have been delivered.
    assert "envoy-ratelimited" in again.route.retry_policy.retry_on.split(",")
    assert "envoy-ratelimited" not in once.route.retry_policy.retry_on.split(",")
    [served] = again.route.retry_policy.retriable_headers
    assert served.invert_match and served.treat_missing_header_as_empty
    # The agent's word for the laptop's answers, and what is written on the app's own.
    assert served.string_match.safe_regex.regex == "via_upstream|application"


def test_a_request_waits_at_a_breakpoint_as_long_as_its_caller_does():
    for route in steer(POINT, []).routes:
        assert route.route.timeout == route.route.idle_timeout == dt.timedelta()
        assert route.route.retry_policy is None or route.route.retry_policy.per_try_timeout is None


def test_each_mode_has_a_filter_of_its_own():
    claims = [claim("a"), replace(claim("b", 1), mirror=True)]
    assert (list(policies(claims)), list(policies(claims, mirror=True))) == (["a"], ["b"])


def test_a_mirror_leaves_out_earlier_mirrors_requests_and_nobody_elses():
    first = Claim(session="m", created=NOON, match=parse_match("header x-a=1"), mirror=True)
    taken = Claim(session="t", created=NOON, match=parse_match("header x-c=1"))
    later = Claim(session="a", created=NOON + dt.timedelta(seconds=1), match=parse_match("header x-b=1"), mirror=True)
    left = parse_match("header x-b=1 and not header x-a=1")
    assert policies([later, first, taken], mirror=True)["a"]["permissions"] == [json.loads(permission(left).to_json())]
    assert policies([later, first, taken])["t"]["permissions"] == [json.loads(permission(taken.match).to_json())]


def test_a_request_that_is_only_copied_goes_where_it_goes_without_us_and_bears_nothing_of_ours():
    mirrors = [route for route in steer(POINT, []).routes if route.name.startswith("hairpin-mirror")]
    assert len(mirrors) == 2
    for route in mirrors:
        assert route.route.cluster == "inbound|8080||"
        assert not (route.request_headers_to_add or route.response_headers_to_add or route.request_headers_to_remove)


def test_every_copy_goes_to_the_cluster_that_bounds_copies():
    routes = [route for route in steer(POINT, []).routes if route.route.request_mirror_policies]
    assert len(routes) == 4
    for route in routes:
        [policy] = route.route.request_mirror_policies
        assert policy.cluster == "hairpin|copies|8080" and policy.disable_shadow_host_suffix_append
        assert [header.name for header in route.match.headers][-1] == "upgrade"
    [cluster] = [cluster for cluster in steer(POINT, []).clusters if cluster.name == "hairpin|copies|8080"]
    [bounds] = cluster.circuit_breakers.thresholds
    assert bounds.max_requests == bounds.max_pending_requests == 64
    assert cluster.per_connection_buffer_high_watermark_timeout <= dt.timedelta(milliseconds=50)
