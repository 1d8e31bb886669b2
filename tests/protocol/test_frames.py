"""Frames: our four messages against Envoy's own, and one encoding for all streams."""

from __future__ import annotations

from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.service.discovery import v3
from envoy_data_plane.google.rpc import Status
from google.protobuf import descriptor_pool

import xds_server.protocol.discovery_pb2
from tests.support.regenerate_discovery import regenerate
from tests.support.xds import CDS, cluster, extension
from xds_server.protocol.actions import SendResponse, Variant
from xds_server.protocol.frames import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    encode_without_nonce,
    with_nonce,
)


def test_generated_files_are_those_of_the_proto(tmp_path: Path):
    here = Path(xds_server.protocol.discovery_pb2.__file__).parent
    regenerate(tmp_path)
    for name in ("discovery_pb2.py", "discovery_pb2.pyi"):
        again = (tmp_path / "xds_server" / "protocol" / name).read_text()
        assert again == (here / name).read_text(), "run: python -m tests.support.regenerate_discovery"


def test_full_names_are_our_own():
    """Envoy's names stay free for whoever loads its protos into the same process."""
    for message in (DiscoveryRequest, DiscoveryResponse, DeltaDiscoveryRequest, DeltaDiscoveryResponse):
        assert message.DESCRIPTOR.full_name.startswith("hairpin.discovery.v1.")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("envoy.service.discovery.v3.DiscoveryRequest")


def test_reads_envoys_request():
    theirs = v3.DiscoveryRequest(
        version_info="v",
        node=Node(id="n", cluster="c", user_agent_name="envoy"),
        resource_names=["a", "b"],
        type_url=CDS,
        response_nonce="7",
        error_detail=Status(code=3, message="bad"),
    )
    ours = DiscoveryRequest.FromString(bytes(theirs))
    assert (ours.version_info, ours.node.id, ours.node.cluster) == ("v", "n", "c")
    assert (list(ours.resource_names), ours.type_url, ours.response_nonce) == (["a", "b"], CDS, "7")
    assert ours.HasField("error_detail")
    assert (ours.error_detail.code, ours.error_detail.message) == (3, "bad")
    assert not DiscoveryRequest.FromString(bytes(v3.DiscoveryRequest(type_url=CDS))).HasField("error_detail")


def test_reads_envoys_delta_request():
    theirs = v3.DeltaDiscoveryRequest(
        node=Node(id="n"),
        type_url=CDS,
        resource_names_subscribe=["a"],
        resource_names_unsubscribe=["b"],
        initial_resource_versions={"c": "1"},
        response_nonce="7",
        error_detail=Status(code=3, message="bad"),
    )
    ours = DeltaDiscoveryRequest.FromString(bytes(theirs))
    assert (ours.node.id, ours.type_url, ours.response_nonce) == ("n", CDS, "7")
    assert (list(ours.resource_names_subscribe), list(ours.resource_names_unsubscribe)) == (["a"], ["b"])
    assert dict(ours.initial_resource_versions) == {"c": "1"}
    assert ours.error_detail.message == "bad"


@pytest.mark.parametrize("nonce", ["1", "1000000", "n" * 127])
def test_envoy_reads_our_response(nonce):
    resources = (cluster("a"), cluster("b"))
    sent = SendResponse(variant=Variant.SOTW, type_url=CDS, version="v", nonce=nonce, resources=resources)
    theirs = v3.DiscoveryResponse.parse(with_nonce(encode_without_nonce(sent), nonce))
    assert (theirs.version_info, theirs.type_url, theirs.nonce) == ("v", CDS, nonce)
    assert [(r.type_url, r.value) for r in theirs.resources] == [(CDS, r.body) for r in resources]


def test_envoy_reads_our_delta_response():
    made = extension("e")
    sent = SendResponse(
        variant=Variant.DELTA, type_url=made.type_url, version="v", nonce="9", resources=(made,), removed=("x", "y")
    )
    theirs = v3.DeltaDiscoveryResponse.parse(with_nonce(encode_without_nonce(sent), "9"))
    assert (theirs.system_version_info, theirs.type_url, theirs.nonce) == ("v", made.type_url, "9")
    assert theirs.removed_resources == ["x", "y"]
    (resource,) = theirs.resources
    assert (resource.name, resource.version) == (made.name, made.version)
    assert resource.resource is not None
    assert (resource.resource.type_url, resource.resource.value) == (made.type_url, made.body)


def test_a_nonce_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="128 bytes"):
        with_nonce(b"", "n" * 128)
