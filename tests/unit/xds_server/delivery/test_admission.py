"""A proxy's certificate decides what it may fetch."""

from __future__ import annotations

import itertools

import pytest

from hairpin.mesh.mesh_file import mesh_from_document
from xds_server.delivery.admission import admit

MESH = mesh_from_document({"services": {"a": {}, "b": {}}, "agents": {"replicas": 2}}, itertools.count(20000))
A = "spiffe://hairpin.local/ns/default/sa/a"
AGENT = "spiffe://hairpin.local/ns/default/sa/hairpin-agent"


@pytest.mark.parametrize(
    ("identity", "node", "group"),
    [
        (A, "sidecar~a.default", "sidecar/a"),
        (AGENT, "sidecar~hairpin-agent-1.default", "agent-sidecar/hairpin-agent-1"),
        (AGENT, "agent~hairpin-agent-0.default", "agent"),
        ("spiffe://hairpin.local/ns/default/sa/entry", "entry~entry.default", "entry"),
        (A, "sidecar~b.default", None),
        (A, "agent~hairpin-agent-0.default", None),
        (AGENT, "sidecar~a.default", None),
        ("spiffe://elsewhere/ns/default/sa/a", "sidecar~a.default", None),
        ("spiffe://hairpin.local/ns/other/sa/a", "sidecar~a.default", None),
        ("checkout-alice-1", "sidecar~a.default", None),
    ],
)
def test_by_identity_and_then_by_name(identity, node, group):
    assert admit(MESH)([identity], node) == group


def test_nobody_gets_nothing():
    assert admit(MESH)([], "sidecar~a.default") is None
