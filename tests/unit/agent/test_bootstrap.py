from __future__ import annotations

import json

from agent.bootstrap import agent_bootstrap, request_log_rate
from agent.settings import settings_of
from tests.unit.agent.test_settings import WHOLE

SETTINGS = settings_of(WHOLE)


def listeners() -> dict:
    return {listener["name"]: listener for listener in agent_bootstrap(SETTINGS)["static_resources"]["listeners"]}


def test_it_is_pure_and_plain_json():
    assert json.loads(json.dumps(agent_bootstrap(SETTINGS))) == agent_bootstrap(SETTINGS)


def test_the_header_that_vouches_replaces_what_the_process_sent():
    routes = listeners()["steer"]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]
    for route in routes["virtual_hosts"][0]["routes"]:
        (header,) = route["response_headers_to_add"]
        assert header["header"]["key"] == "x-hairpin-served"
        assert header["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"


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
    alone = settings_of({name: value for name, value in WHOLE.items() if name != "mesh"})
    clusters = {cluster["name"] for cluster in agent_bootstrap(alone)["static_resources"]["clusters"]}
    assert "mesh" not in clusters
    assert "mesh" in {cluster["name"] for cluster in agent_bootstrap(SETTINGS)["static_resources"]["clusters"]}


def test_the_request_log_is_bounded():
    (resource,) = request_log_rate(SETTINGS)["resources"]
    assert resource["resource"]["max_tokens"] == SETTINGS.requests_per_second
