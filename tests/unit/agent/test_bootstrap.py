from __future__ import annotations

import json

from agent.bootstrap import agent_bootstrap, request_log_rate
from agent.copies import LARGEST
from agent.settings import settings_of
from tests.unit.agent.test_settings import IN_CLUSTER, POD, WHOLE, without

SETTINGS = settings_of(WHOLE)


def listeners() -> dict:
    return {listener["name"]: listener for listener in agent_bootstrap(SETTINGS)["static_resources"]["listeners"]}


def test_it_is_pure_and_plain_json():
    assert json.loads(json.dumps(agent_bootstrap(SETTINGS))) == agent_bootstrap(SETTINGS)


def test_the_header_that_vouches_replaces_what_the_process_sent():
    routes = listeners()["steer"]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    *copies, steered, unclaimed = routes["virtual_hosts"][0]["routes"]
    assert not any("response_headers_to_add" in route for route in copies)  # nobody gets their answers
    for route in (steered, unclaimed):
        (header,) = route["response_headers_to_add"]
        assert header["header"]["key"] == "x-hairpin-served"
        assert header["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"


def test_copies_and_they_alone_are_taken_whole_before_they_go_on():
    manager = listeners()["steer"]["filter_chains"][0]["filters"][0]["typed_config"]
    [buffer] = [found for found in manager["http_filters"] if found["name"] == "envoy.filters.http.buffer"]
    assert buffer["disabled"]
    *copies, steered, unclaimed = manager["route_config"]["virtual_hosts"][0]["routes"]
    for route in copies:
        assert route["typed_per_filter_config"]["envoy.filters.http.buffer"]["buffer"] == {"max_request_bytes": LARGEST}
        assert route["route"]["max_stream_duration"]["max_stream_duration"] != "0s"
        assert {header["name"] for header in route["match"]["headers"]} == {"x-hairpin-copy", "x-hairpin-session"}
    assert "typed_per_filter_config" not in steered and "typed_per_filter_config" not in unclaimed


def test_what_faces_laptops_demands_their_certificate_anew_each_time():
    for name in ("tunnel", "egress"):
        context = listeners()[name]["filter_chains"][0]["transport_socket"]["typed_config"]
        assert context["require_client_certificate"]
        assert context["disable_stateless_session_resumption"]
        assert context["disable_stateful_session_resumption"]


def test_the_egress_is_closed_until_its_policy_comes():
    manager = listeners()["egress"]["filter_chains"][0]["filters"][0]["typed_config"]
    policy = manager["http_filters"][0]
    assert policy["name"] == "hairpin.egress"
    discovery = policy["config_discovery"]
    assert discovery["default_config"]["rules"] == {"action": "ALLOW", "policies": {}}
    assert discovery["apply_default_config_without_warming"]


def test_a_place_without_interception_is_the_only_one_with_mesh_names():
    alone = settings_of(without(WHOLE, "mesh"))
    clusters = {cluster["name"] for cluster in agent_bootstrap(alone)["static_resources"]["clusters"]}
    assert "mesh" not in clusters
    assert "mesh" in {cluster["name"] for cluster in agent_bootstrap(SETTINGS)["static_resources"]["clusters"]}


def test_the_request_log_is_bounded():
    (resource,) = request_log_rate(SETTINGS)["resources"]
    assert resource["resource"]["max_tokens"] == SETTINGS.requests_per_second


def test_a_control_plane_is_looked_up_by_name():
    def control_plane(settings):
        clusters = agent_bootstrap(settings)["static_resources"]["clusters"]
        return next(cluster for cluster in clusters if cluster["name"] == "xds-server")

    assert control_plane(settings_of(IN_CLUSTER, POD))["type"] == "STRICT_DNS"
    assert "type" not in control_plane(SETTINGS)


def test_its_node_is_the_pod():
    assert agent_bootstrap(settings_of(IN_CLUSTER, POD))["node"]["id"] == "agent~hairpin-agent-1.shop"


def test_an_agent_for_egress_alone_listens_for_nothing_else():
    only = {**WHOLE, "role": "egress", "listeners": without(WHOLE["listeners"], "steer", "tunnel")}
    bootstrap = agent_bootstrap(settings_of(only))
    assert [listener["name"] for listener in bootstrap["static_resources"]["listeners"]] == ["egress"]
    assert not bootstrap["bootstrap_extensions"]
    clusters = {cluster["name"] for cluster in bootstrap["static_resources"]["clusters"]}
    assert not clusters & {"tunnel", "session"}


def test_no_laptop_says_itself_which_session_it_is():
    manager = listeners()["egress"]["filter_chains"][0]["filters"][0]["typed_config"]
    (early,) = manager["early_header_mutation_extensions"]
    assert {"remove": "x-hairpin-session"} in early["typed_config"]["mutations"]
