from __future__ import annotations

import pytest

from tests.support.xds import CDS, EDS, LDS, RDS, cluster, endpoints, listener, route, snapshot
from xds_server.model.snapshot import Snapshot, SnapshotInconsistentError


class TestSnapshot:
    def test_versions_are_by_type(self):
        before = snapshot(cluster("a"), listener("l"))
        after = snapshot(cluster("a"), listener("l", 2))
        assert before.version(CDS) == after.version(CDS)
        assert before.version(LDS) != after.version(LDS)

    def test_a_type_without_resources_is_empty(self):
        assert not snapshot().resources(CDS)
        assert snapshot().version(CDS) == snapshot(listener("l")).version(CDS)

    def test_equal_where_the_content_is(self):
        assert snapshot(cluster("a")) == snapshot(cluster("a"))
        assert snapshot(cluster("a")) != snapshot(cluster("a", 2))
        assert snapshot(cluster("a")) != snapshot()
        assert hash(snapshot(cluster("a"))) == hash(snapshot(cluster("a")))

    def test_no_resources_of_a_type_is_the_same_as_not_having_it(self):
        empty = snapshot(cluster("a")).with_resources(CDS, [])
        assert empty == snapshot()
        assert hash(empty) == hash(snapshot())

    def test_with_resources_shares_the_rest(self):
        before = snapshot(cluster("a"), listener("l"))
        after = before.with_resources(LDS, [listener("m")])
        assert list(after.resources(LDS)) == ["m"]
        assert after.resources(CDS) is before.resources(CDS)
        assert list(before.resources(LDS)) == ["l"]

    def test_cannot_be_changed(self):
        with pytest.raises(TypeError):
            snapshot(cluster("a")).types[CDS] = snapshot().resources(CDS)  # type: ignore[index]


class TestConsistency:
    def test_endpoints_that_no_cluster_names(self):  # SnapshotWithOnlyEndpointIsInconsistent
        with pytest.raises(SnapshotInconsistentError, match="ClusterLoadAssignment not referred to: a") as caught:
            Snapshot.of([endpoints("a")], references={EDS: []})
        assert caught.value.unreferenced == {"a"}

    def test_a_cluster_without_its_endpoints(self):  # ClusterWithMissingEndpointIsInconsistent
        with pytest.raises(SnapshotInconsistentError, match="missing: a, b") as caught:
            Snapshot.of([cluster("a")], references={EDS: ["b", "a"]})
        assert (caught.value.type_url, caught.value.missing) == (EDS, {"a", "b"})

    def test_a_listener_without_its_route(self):  # ListenerWithMissingRoutesIsInconsistent
        with pytest.raises(SnapshotInconsistentError, match="RouteConfiguration missing: r"):
            Snapshot.of([listener("l")], references={RDS: ["r"]})

    def test_a_listener_with_another_route(self):  # ListenerWithUnidentifiedRouteIsInconsistent
        with pytest.raises(SnapshotInconsistentError, match="missing: r; not referred to: s"):
            Snapshot.of([listener("l"), route("s")], references={RDS: ["r"]})

    def test_a_listener_with_its_route(self):  # RouteListenerWithRouteIsConsistent
        made = Snapshot.of([listener("l"), route("r"), cluster("a"), endpoints("a")], references={RDS: ["r"], EDS: "a"})
        assert list(made.resources(RDS)) == ["r"]

    def test_types_that_are_not_given_are_not_checked(self):
        assert Snapshot.of([endpoints("a")], references={RDS: []}).resources(EDS)
