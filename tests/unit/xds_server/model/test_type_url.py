from __future__ import annotations

from xds_server.model.type_url import TypeUrl, push_rank


def test_push_order_is_make_before_break():
    names = [type_url.rsplit(".", 1)[-1] for type_url in sorted(TypeUrl, key=push_rank)]
    assert names == [
        "Cluster",
        "ClusterLoadAssignment",
        "Listener",
        "RouteConfiguration",
        "Secret",
        "TypedExtensionConfig",
    ]


def test_unknown_types_come_last():
    assert push_rank("type.googleapis.com/unheard.of") > max(map(push_rank, TypeUrl))
