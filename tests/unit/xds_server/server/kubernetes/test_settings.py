"""The controller's settings: what can be written, and what is said of what can't."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.kubernetes.controller import controller_settings
from hairpin.kubernetes.installation import Installation, Published
from hairpin.model.environment import Carrier, RoutingKey
from hairpin.model.mesh import SocketAddress
from xds_server.delivery.istio.world import PublishedAddress
from xds_server.server.kubernetes import settings as module
from xds_server.server.kubernetes.settings import read_settings, settings_of


def test_the_documented_file_is_read():
    assert module.__doc__
    text = module.__doc__.partition("\n\n")[2].rpartition("\n\n")[0]
    settings = settings_of(yaml.safe_load(text))
    assert settings.namespaces == {"shop", "billing"}
    assert settings.published == PublishedAddress(host="{pod}.agents.example.com", tunnel_port=9443, egress_port=9444)
    assert settings.forbidden == ("10.0.0.0/20",)
    assert (settings.shortest_lease, settings.longest_lease) == (timedelta(seconds=1), timedelta(hours=1))


def test_little_is_enough():
    settings = settings_of({"namespaces": []})
    assert (settings.api, settings.xds) == (SocketAddress("0.0.0.0", 9100), SocketAddress("0.0.0.0", 9101))
    assert settings.routing_key == RoutingKey() and settings.published is None and settings.lease_seconds == 5


def test_what_an_installation_writes_is_read(tmp_path):
    installation = Installation(
        namespaces=("shop",),
        published=Published("agents.example.com", 1443, 1444),
        trust_domain="mesh.example",
        routing_key=RoutingKey(Carrier.BAGGAGE, "env"),
    )
    file: Path = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(controller_settings(installation)))
    settings = read_settings(file)
    assert settings.namespaces == {"shop"} and settings.trust_domain == "mesh.example"
    assert settings.published == PublishedAddress(host="agents.example.com", tunnel_port=1443, egress_port=1444)
    assert settings.routing_key == RoutingKey(Carrier.BAGGAGE, "env")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"namespaces": None}, "namespaces"),
        ({"namespaces": "shop"}, "namespaces"),
        ({"namespaces": ["Shop"]}, "namespaces[0]"),
        ({"namespace": "a.b"}, "namespace"),
        ({"trustDomain": "cluster.local."}, "trustDomain"),
        ({"clusterDomain": "Cluster"}, "clusterDomain"),
        ({"rootNamespace": ""}, "rootNamespace"),
        ({"routingKey": {"heather": "x-env"}}, "routingKey.heather"),
        ({"listen": {"api": "localhost:9100"}}, "listen.api"),
        ({"listen": {"xds": "0.0.0.0:99999"}}, "listen.xds"),
        ({"agents": {"published": {"tunnelPort": 9443}}}, "agents.published.host"),
        ({"agents": {"published": {"host": "{node}.example.com"}}}, "agents.published.host"),
        ({"agents": {"published": {"host": "https://example.com"}}}, "agents.published.host"),
        ({"agents": {"published": {"host": "a", "egressPort": 0}}}, "agents.published.egressPort"),
        ({"egress": {"forbidden": ["10.0.0.1/8"]}}, "egress.forbidden[0]"),
        ({"sessions": {"shortestLease": 0}}, "sessions.shortestLease"),
        ({"sessions": {"shortestLease": 20, "longestLease": 10}}, "sessions.shortestLease"),
        ({"leaderElection": {"seconds": 0.5}}, "leaderElection.seconds"),
        ({"leaderElection": {"seconds": True}}, "leaderElection.seconds"),
        ({"trustDomian": "x"}, "trustDomian"),
    ],
)
def test_a_wrong_field_is_named(change, field):
    with pytest.raises(InvalidFieldError) as raised:
        settings_of({"namespaces": ["shop"], **change})
    assert raised.value.field == field
    assert raised.value.remedy


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HairpinError, match=r"settings\.yaml"):
        read_settings(tmp_path / "settings.yaml")
