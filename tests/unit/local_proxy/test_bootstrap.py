from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hairpin.envoy.config import Identity
from hairpin.model.environment import Environment
from hairpin.model.session import AgentAddress
from local_proxy.bootstrap import LaptopSettings, cluster_name, laptop_bootstrap, write_app, write_tunnels
from local_proxy.gateway import HTTP

AGENTS = tuple(
    AgentAddress(name=f"agent-{n}", host="10.0.0.1", tunnel_port=9000 + n, egress_port=9100 + n) for n in (0, 1)
)


@pytest.fixture
def settings(tmp_path: Path) -> LaptopSettings:
    return LaptopSettings(
        session="alice-1",
        identity=Identity(tmp_path / "identity"),
        agents=AGENTS,
        agent_identity="spiffe://hairpin.local/ns/default/sa/hairpin-agent",
        egress_port=15001,
        gateway_port=15002,
        directory=tmp_path,
    )


def resources(path: Path) -> list[dict]:
    return json.loads(path.read_text())["resources"]


def test_nothing_listens_beyond_loopback(settings):
    write_tunnels(settings, {})
    listeners = laptop_bootstrap(settings)["static_resources"]["listeners"] + resources(settings.tunnels_file)
    assert {"egress", "gateway", "ask"} <= {listener["name"] for listener in listeners}
    for listener in listeners:
        where = listener.get("address", {})
        socket = where.get("socket_address", {}).get("address", "")
        inside = "internal_listener" in listener or where.get("pipe", {}).get("path", "").startswith(
            str(settings.directory)
        )
        assert inside or socket.startswith(("127.0.0.1", "rc://"))


def test_http_is_taken_apart_only_where_a_header_is_added(settings):
    def gateway(of):
        static = laptop_bootstrap(of)["static_resources"]
        listeners = {listener["name"]: listener for listener in static["listeners"]}
        inside = {cluster["name"] for cluster in static["clusters"]} & {HTTP}, {HTTP} & set(listeners)
        return listeners.get("gateway"), inside

    listener, inside = gateway(settings)
    assert inside == (set(), set())
    assert [one["name"] for one in listener["listener_filters"]] == ["envoy.filters.listener.proxy_protocol"]
    listener, inside = gateway(dataclasses.replace(settings, inject=Environment("alice")))
    assert inside == ({HTTP}, {HTTP})
    assert len(listener["listener_filters"]) == 2
    # What is not HTTP goes as it went.
    assert listener["default_filter_chain"] == gateway(settings)[0]["filter_chains"][0]
    none = dataclasses.replace(settings, inject=Environment("alice"), gateway_port=None)
    assert gateway(none) == (None, (set(), set()))


def test_both_tls_legs_and_the_egress_demand_the_agents_identity(settings):
    write_tunnels(settings, {})
    write_app(settings, None)
    clusters = resources(settings.app_file)
    sockets = [cluster["transport_socket"] for cluster in clusters if cluster["name"].startswith(("agent/", "egress"))]
    sockets += [listener["filter_chains"][0]["transport_socket"] for listener in resources(settings.tunnels_file)]
    assert len(sockets) == 5
    for socket in sockets:
        validation = socket["typed_config"]["common_tls_context"]["validation_context"]
        (peer,) = validation["match_typed_subject_alt_names"]
        assert peer == {"san_type": "URI", "matcher": {"exact": settings.agent_identity}}


def test_a_new_generation_gives_one_replica_a_new_listener(settings):
    write_tunnels(settings, {})
    before = {listener["name"] for listener in resources(settings.tunnels_file)}
    write_tunnels(settings, {"agent-1": 3})
    after = {listener["name"] for listener in resources(settings.tunnels_file)}
    assert before == {"tunnel/agent-0/0", "tunnel/agent-1/0"}
    assert after == {"tunnel/agent-0/0", "tunnel/agent-1/3"}
    assert cluster_name(AGENTS[0]) == "agent/agent-0"


def test_the_processes_address_is_in_a_file_and_may_be_missing(settings):
    write_app(settings, None)
    assert resources(settings.app_file)[0]["load_assignment"]["endpoints"] == [{"lb_endpoints": []}]
    write_app(settings, ("127.0.0.1", 8000))
    (endpoint,) = resources(settings.app_file)[0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 8000}
