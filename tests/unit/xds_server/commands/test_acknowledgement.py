"""What a sidecar's dump of its listeners says of the plumbing."""

from __future__ import annotations

from xds_server.commands.acknowledgement import Refusal, has_plumbing, refused
from xds_server.generate.steer import match_filter_name


def listener(*ports: int, error: str = "", failed: tuple[int, ...] = ()) -> dict:
    def of(numbers):
        filters = [{"name": match_filter_name(port), "config_discovery": {}} for port in numbers]
        return {"name": "virtualInbound", "filter_chains": [{"filters": filters}]}

    found: dict = {"name": "virtualInbound", "active_state": {"listener": of(ports)}}
    if error or failed:
        found["error_state"] = {"failed_configuration": of(failed), "details": error}
    return found


def test_a_listener_that_has_it():
    assert has_plumbing([listener(), listener(8080)], 8080)
    assert not has_plumbing([listener(8080)], 80)
    assert not has_plumbing([listener(80)], 8080)
    assert not has_plumbing([], 8080)


def test_a_refused_listener_is_not_one_that_has_it():
    listeners = [listener(error="Unable to parse", failed=(8080,))]
    assert not has_plumbing(listeners, 8080)
    assert refused(listeners, 8080) == Refusal("Unable to parse")


def test_a_refusal_of_something_else_is_none_of_ours():
    assert refused([listener(8080, error="another EnvoyFilter's fault", failed=(9090,))], 8080) is None
    assert refused([listener(8080)], 8080) is None
