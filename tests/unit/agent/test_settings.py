from __future__ import annotations

import copy
import ipaddress
import textwrap
from pathlib import Path
from typing import Any

import pytest

import agent.settings
from agent.settings import Role, read_settings, settings_of
from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.mesh import SocketAddress

WHOLE: dict[str, Any] = {
    "name": "agent-0",
    "namespace": "shop",
    "directory": "run",
    "controlPlane": {"api": "https://127.0.0.1:9100", "xds": "127.0.0.1:9101", "authority": "ca", "tokenFile": "t"},
    "listeners": {kind: f"127.0.0.1:{9200 + n}" for n, kind in enumerate(("steer", "tunnel", "egress", "ready"))},
    "mesh": {"outbound": "127.0.0.1:9205", "services": ["inventory"]},
}


def test_the_documented_example_is_valid(tmp_path):
    example = agent.settings.__doc__.partition("\n\n")[2]
    path = tmp_path / "agent.yaml"
    path.write_text(textwrap.dedent(example))
    settings = read_settings(path)
    assert settings.tunnel == SocketAddress("0.0.0.0", 9202)
    assert ipaddress.ip_network("10.0.0.0/8") in settings.forbidden
    assert settings.forbidden_hosts == ("db.prod",)
    assert (settings.role, settings.report_requests) == (Role.STEER, True)


POD = {
    "POD_NAME": "hairpin-agent-1",
    "POD_NAMESPACE": "shop",
    "POD_IPS": "10.1.0.7,fd00::7",
    "HOST_IP": "10.0.0.3",
    "HOST_IPS": "10.0.0.3, fd01::3",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
}
IN_CLUSTER: dict[str, Any] = {
    "name": {"env": "POD_NAME"},
    "namespace": {"env": "POD_NAMESPACE"},
    "directory": "/run/hairpin",
    "controlPlane": {
        "api": "https://hairpin-controller.hairpin-system.svc:9100",
        "xds": "hairpin-controller.hairpin-system.svc:9101",
        "authority": "/etc/hairpin/ca.pem",
        "tokenFile": "/var/run/secrets/hairpin/token",
    },
    "listeners": {"steer": "0.0.0.0:8080", "tunnel": "0.0.0.0:9443", "egress": "[::]:9444", "ready": "0.0.0.0:9445"},
    "egress": {"forbiddenHosts": ["db.prod"]},
}


def without(document: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in fields}


def test_in_a_pod_it_knows_itself_and_its_surroundings_from_the_environment():
    settings = settings_of(IN_CLUSTER, POD)
    assert (settings.name, settings.namespace) == ("hairpin-agent-1", "shop")
    assert settings.control_plane.xds == SocketAddress("hairpin-controller.hairpin-system.svc", 9101)
    assert settings.egress == SocketAddress("::", 9444)
    assert settings.mesh_domains == ()
    assert settings.forbidden_hosts == ("hairpin-agent.shop.svc", "db.prod")
    assert {str(network): reason for network, reason in settings.forbidden.items()} == {
        "10.1.0.7/32": "is the agent's own address",
        "fd00::7/128": "is the agent's own address",
        "10.0.0.3/32": "is the agent's node",
        "fd01::3/128": "is the agent's node",
        "10.96.0.1/32": "is the API server",
    }


def test_an_operator_may_open_the_api_server():
    opened = {**IN_CLUSTER, "egress": {"denyApiServer": False}}
    assert {str(network) for network in settings_of(opened, POD).forbidden} == {"10.1.0.7/32", "fd00::7/128"}


def test_an_api_server_that_is_given_by_name_is_forbidden_by_name():
    named = {**POD, "KUBERNETES_SERVICE_HOST": "api.example.com"}
    assert settings_of(IN_CLUSTER, named).forbidden_hosts == ("hairpin-agent.shop.svc", "db.prod", "api.example.com")


def test_an_agent_for_egress_alone_has_no_steering_listeners():
    only = {**WHOLE, "role": "egress", "listeners": without(WHOLE["listeners"], "steer", "tunnel")}
    settings = settings_of(only)
    assert (settings.role, settings.steer, settings.tunnel) == (Role.EGRESS, None, None)
    with pytest.raises(InvalidFieldError, match=r"listeners\.tunnel: .* has no meaning in role egress") as caught:
        settings_of({**only, "listeners": without(WHOLE["listeners"], "steer")})
    assert caught.value.field == "listeners.tunnel"


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        (without(POD, "POD_NAME"), "name.env"),
        ({**POD, "POD_NAMESPACE": ""}, "namespace.env"),
        ({**POD, "HOST_IPS": "10.0.0.3;10.0.0.4"}, "HOST_IPS"),
        ({**POD, "POD_IP": "here"}, "POD_IP"),
        ({**POD, "KUBERNETES_SERVICE_HOST": "10.96.0.1:443"}, "KUBERNETES_SERVICE_HOST"),
    ],
)
def test_a_variable_that_is_missing_or_wrong_is_named(variables, field):
    with pytest.raises(InvalidFieldError) as caught:
        settings_of(IN_CLUSTER, variables)
    assert caught.value.field == field


def test_services_are_known_short_and_in_full():
    assert settings_of(WHOLE).mesh_domains == (
        "inventory",
        "inventory.shop",
        "inventory.shop.svc",
        "*.shop.svc.cluster.local",
    )
    alone = {name: value for name, value in WHOLE.items() if name != "mesh"}
    assert settings_of(alone).mesh_domains == ()


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("name", None, "name"),
        ("directory", 3, "directory"),
        ("controlPlane.api", "http://127.0.0.1", "controlPlane.api"),
        ("controlPlane.api", "https://", "controlPlane.api"),
        ("controlPlane.api", "https://x:y", "controlPlane.api"),
        ("controlPlane.xds", "controller", "controlPlane.xds"),
        ("controlPlane.xds", "127.1:9101", "controlPlane.xds"),
        ("controlPlane.xds", "a_b:9101", "controlPlane.xds"),
        ("name", {"env": "POD_NAME"}, "name.env"),
        ("name", {"variable": "POD_NAME"}, "name.env"),
        ("role", "tunnel", "role"),
        ("listeners.tunnel", None, "listeners.tunnel"),
        ("listeners.tunnel", "localhost:9202", "listeners.tunnel"),
        ("egress", {"forbiddenHosts": ["10.0.0.1"]}, "egress.forbiddenHosts[0]"),
        ("egress", {"denyApiServer": "no"}, "egress.denyApiServer"),
        ("requestLog", {"report": 1}, "requestLog.report"),
        ("listeners.steer", "127.0.0.1:0", "listeners.steer"),
        ("listeners.ready", "127.0.0.1", "listeners.ready"),
        ("mesh.outbound", "x", "mesh.outbound"),
        ("egress", {"forbidden": ["10.0.0.1/8"]}, "egress.forbidden[0]"),
        ("requestLog", {"perSecond": 0}, "requestLog.perSecond"),
        ("drainSeconds", True, "drainSeconds"),
        ("drainSecond", 1, "drainSecond"),
        ("listeners.admin", 1, "listeners.admin"),
    ],
)
def test_an_error_names_its_field(path, value, field):
    document = copy.deepcopy(WHOLE)
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(InvalidFieldError) as caught:
        settings_of(document)
    assert caught.value.field == field


def test_a_file_that_is_missing_or_no_yaml_is_said_so(tmp_path):
    with pytest.raises(NotFoundError, match="--config"):
        read_settings(tmp_path / "none")
    Path(tmp_path / "bad").write_text("a: [")
    with pytest.raises(InvalidFieldError, match="no YAML"):
        read_settings(tmp_path / "bad")
