"""The mesh's file: what it means, and what is said of what is wrong with it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml

from hairpin.errors import InvalidFieldError
from hairpin.mesh.mesh_file import mesh_from_document, mesh_to_document
from hairpin.model.environment import Carrier, RoutingKey
from hairpin.model.mesh import SocketAddress

ROOT = Path(__file__).parents[4]
LEAST = {"services": {"web": {}}}


def read(document):
    return mesh_from_document(document, itertools.count(20000))


def test_the_least_that_is_a_mesh():
    mesh = read(LEAST)
    [web] = mesh.workloads
    assert [(port.number, port.name) for port in web.ports] == [(80, "http")]
    assert mesh.entry.service == "web" and mesh.routing_key == RoutingKey(Carrier.HEADER, "x-env")
    assert [agent.name for agent in mesh.agents] == ["hairpin-agent-0"]
    assert web.steerable


def test_the_examples_mesh():
    mesh = read(yaml.safe_load((ROOT / "examples/shop/mesh.yaml").read_text()))
    assert [workload.name for workload in mesh.workloads] == ["frontend", "checkout", "inventory"]
    assert mesh.entry.address == SocketAddress("127.0.0.1", 8080)


def test_written_whole_it_reads_the_same_without_a_port_to_give():
    mesh = read(
        {
            "services": {"a": {"ports": [{"port": 80}, {"name": "grpc", "port": 9090}]}, "b": {}},
            "agents": {"replicas": 2},
        }
    )
    whole = json.loads(json.dumps(mesh_to_document(mesh)))
    assert mesh_from_document(whole, iter(())) == mesh


def test_a_port_that_the_file_names_is_given_to_nobody_else():
    mesh = read({"entry": {"port": 20003}, "services": {"web": {"ports": [{"app": "127.0.0.1:20000"}]}}})
    [web] = mesh.workloads
    assert (web.outbound.port, web.ports[0].inbound.port) == (20002, 20001)


def test_braces_that_are_no_placeholder_are_left():
    [web] = read(
        {"services": {"web": {"command": ["{python}", '{"a": 1}', "{port}", "{port:http}", "${HOME}"]}}}
    ).workloads
    assert web.command[1] == '{"a": 1}'


def test_ports_are_found_by_number_name_or_when_there_is_one():
    mesh = read({"services": {"a": {"ports": [{"port": 80}, {"name": "grpc", "port": 9090}]}, "b": {}}})
    a, b = mesh.workloads
    assert a.port("grpc") is a.port(9090) is a.ports[1]
    assert a.port(None) is None and b.port(None) is b.ports[0] and b.port(81) is None


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ([], "file", "mapping"),
        ({}, "services", "missing"),
        (None, "the file", "empty"),
        ({"servces": {}}, "services", "mean it by 'servces'"),
        ({"services": {}}, "services", "no service"),
        ({"services": {"web": {"command": ["a", "--port={prt}"]}}}, "services.web.command[1]", "{prt}"),
        ({"services": {"web": {"command": ["{port:grpc}"]}}}, "services.web.command[0]", "{port:http}"),
        ({"services": {"Web": {}}}, "services", "lower-case"),
        ({"services": {"hairpin-agent": {}}}, "services", "agent's own"),
        ({"services": {"entry": {}}}, "services", "the mesh's entry's own name"),
        ({"services": {"xds-server": {}}}, "services", "the control plane's own name"),
        ({"services": {"hairpin-agent-0": {}}}, "agents.replicas[0].name", "another part's name"),
        (LEAST | {"agents": {"replicas": [{"name": "a"}, {"name": "a"}]}}, "agents.replicas[1].name", "another part's"),
        (
            LEAST | {"agents": {"replicas": [{"steer": "127.0.0.1:1", "tunnel": "127.0.0.1:1"}]}},
            "agents.replicas[0].tunnel",
            "taken by agents.replicas[0].steer",
        ),
        ({"services": {"web": {"ports": []}}}, "services.web.ports", "empty"),
        ({"services": {"web": {"ports": [{"port": 0}]}}}, "services.web.ports[0].port", "1 to 65535"),
        ({"services": {"web": {"ports": [{"port": "80"}]}}}, "services.web.ports[0].port", "65535"),
        ({"services": {"web": {"ports": [{"app": "here"}]}}}, "services.web.ports[0].app", "HOST:PORT"),
        ({"services": {"web": {"ports": [{}, {}]}}}, "services.web.ports", "twice"),
        ({"services": {"web": {"comand": []}}}, "services.web.comand", "did you mean command"),
        ({"services": {"web": {"steerable": "no"}}}, "services.web.steerable", "true or false"),
        (LEAST | {"entry": {"service": "wob"}}, "entry.service", "web"),
        (LEAST | {"routingKey": {}}, "routingKey", "header: x-env"),
        (LEAST | {"routingKey": {"header": "a", "baggage": "b"}}, "routingKey", "one routing key"),
        (LEAST | {"agents": {"replicas": 0}}, "agents.replicas", "1 to"),
        (LEAST | {"agents": {"replicas": True}}, "agents.replicas", "number"),
        (
            {"entry": {"port": 8080}, "services": {"web": {"ports": [{"app": "127.0.0.1:8080"}]}}},
            "services.web.ports.http.app",
            "taken by entry",
        ),
    ],
)
def test_errors_name_the_field_and_the_remedy(document, field, words):
    with pytest.raises(InvalidFieldError) as raised:
        read(document)
    assert raised.value.field == field
    assert words in str(raised.value)
