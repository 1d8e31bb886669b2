"""What steering makes of claims."""

from __future__ import annotations

import datetime as dt
import json

from hypothesis import given
from hypothesis import strategies as st

from hairpin.model.environment import Environment
from hairpin.model.mesh import SocketAddress
from xds_server.generate import steer as module
from xds_server.generate.steer import Claim, SteeringPoint, match_filter, steer

POINT = SteeringPoint(port=8080, app=SocketAddress("127.0.0.1", 8081), agent_cluster="outbound|80||agent")
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def claim(session: str, seconds: int = 0) -> Claim:
    return Claim(session=session, created=NOON + dt.timedelta(seconds=seconds), match=Environment(session).match)


def policies(claims: list[Claim]) -> dict[str, object]:
    config = json.loads(match_filter(POINT, claims).to_json())["typedConfig"]
    found: dict[str, object] = config.get("shadowRules", {}).get("policies", {})
    return found


def test_without_claims_the_filter_matches_nothing_and_decides_nothing():
    config = json.loads(match_filter(POINT, []).to_json())["typedConfig"]
    assert "rules" not in config and "shadowRules" not in config


def test_policies_stand_in_the_order_of_creation_whatever_their_names():
    assert sorted(policies([claim("a", 5), claim("z", 1), claim("m", 3)])) == ["000000.z", "000001.m", "000002.a"]


def test_of_two_created_at_once_the_order_is_that_of_their_names():
    assert sorted(policies([claim("b"), claim("a")])) == ["000000.a", "000001.b"]


@given(st.permutations([claim("a", 1), claim("b", 2), claim("c", 3)]))
def test_the_order_in_which_claims_are_given_makes_no_difference(claims):
    assert bytes(match_filter(POINT, claims)) == bytes(
        match_filter(POINT, [claim("a", 1), claim("b", 2), claim("c", 3)])
    )


def test_lua_cuts_the_order_off_the_policys_name():
    start = int(module.LUA.split('effective_policy_id"], ')[1].split(")")[0])
    [name] = policies([claim("checkout-alice-1")])
    assert name[start - 1 :] == "checkout-alice-1"  # Lua counts from 1


def test_plumbing_is_the_same_for_any_claims():
    none, some = steer(POINT, []), steer(POINT, [claim("a"), claim("b", 1)])
    assert (none.clusters, none.filters, none.routes) == (some.clusters, some.filters, some.routes)
    assert none.match_filter != some.match_filter


def test_routes_match_on_metadata_that_no_client_can_write():
    for route in steer(POINT, []).routes:
        [metadata] = route.match.dynamic_metadata
        assert metadata.filter == "hairpin" and [segment.key for segment in metadata.path] == ["session"]


def test_only_idempotent_requests_are_repeated_after_they_may_have_been_delivered():
    again, once = steer(POINT, []).routes
    [method] = again.match.headers
    assert "POST" not in method.string_match.safe_regex.regex and "PATCH" not in method.string_match.safe_regex.regex
    assert "reset" in again.route.retry_policy.retry_on.split(",")
    assert "reset" not in once.route.retry_policy.retry_on.split(",")
    [served] = again.route.retry_policy.retriable_headers
    assert served.invert_match and served.treat_missing_header_as_empty and served.string_match.exact == "via_upstream"


def test_a_request_waits_at_a_breakpoint_as_long_as_its_caller_does():
    for route in steer(POINT, []).routes:
        assert route.route.timeout == route.route.idle_timeout == dt.timedelta()
        assert route.route.retry_policy.per_try_timeout is None
