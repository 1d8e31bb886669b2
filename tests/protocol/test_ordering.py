"""Make before break, in both variants: nothing is referred to before it is there, nor gone before nothing refers to it."""

from __future__ import annotations

from tests.support.xds import (
    CDS,
    ECDS,
    EDS,
    LDS,
    RDS,
    Playbook,
    ack,
    acked,
    cluster,
    delta,
    endpoints,
    extension,
    listener,
    nack,
    nacked,
    request,
    response,
    route,
    snapshot,
)
from xds_server.protocol.delta import DeltaStream
from xds_server.protocol.sotw import SotwStream

BEFORE = snapshot(
    cluster("a"), endpoints("a"), listener("l"), route("r", "to a"), extension("e", "for a"), extension("f")
)
AFTER = snapshot(
    cluster("b"), endpoints("b"), listener("l"), route("r", "to b"), extension("e", "for b"), extension("f")
)


def sotw() -> Playbook:
    """A client that has all of `BEFORE`; the last nonce is 5."""
    return (
        Playbook(SotwStream())
        >> BEFORE
        >> request(CDS)
        << response(CDS, "a", nonce=1)
        >> ack(CDS, nonce=1)
        << acked(CDS, nonce=1)
        >> request(EDS, "a")
        << response(EDS, "a", nonce=2)
        >> ack(EDS, "a", nonce=2)
        << acked(EDS, nonce=2)
        >> request(LDS)
        << response(LDS, "l", nonce=3)
        >> ack(LDS, nonce=3)
        << acked(LDS, nonce=3)
        >> request(RDS, "r")
        << response(RDS, "r", nonce=4)
        >> ack(RDS, "r", nonce=4)
        << acked(RDS, nonce=4)
        >> request(ECDS, "e")
        << response(ECDS, "e", nonce=5)
        >> ack(ECDS, "e", nonce=5)
        << acked(ECDS, nonce=5)
    )


def incremental() -> Playbook:
    """The same client with the delta variant; the last nonce is 5."""
    return (
        Playbook(DeltaStream())
        >> BEFORE
        >> delta(CDS)
        << response(CDS, "a", nonce=1)
        >> delta(CDS, nonce=1)
        << acked(CDS, nonce=1)
        >> delta(EDS, "a")
        << response(EDS, "a", nonce=2)
        >> delta(EDS, nonce=2)
        << acked(EDS, nonce=2)
        >> delta(LDS)
        << response(LDS, "l", nonce=3)
        >> delta(LDS, nonce=3)
        << acked(LDS, nonce=3)
        >> delta(RDS, "r")
        << response(RDS, "r", nonce=4)
        >> delta(RDS, nonce=4)
        << acked(RDS, nonce=4)
        >> delta(ECDS, "e")
        << response(ECDS, "e", nonce=5)
        >> delta(ECDS, nonce=5)
        << acked(ECDS, nonce=5)
    )


class TestMoveToAnotherCluster:
    def test_sotw(self):
        book = (
            sotw()
            >> AFTER
            << response(CDS, "a", "b", nonce=6)  # together: absence would be removal
            << response(EDS, "a", nonce=7)  # what follows a changed set of clusters, even what is on its way out
            >> ack(EDS, "a", nonce=7)
            << acked(EDS, nonce=7)
            >> request(EDS, "a", "b", nonce=7)  # b is asked for while it warms: answered at once
            << response(EDS, "b", nonce=8)
            >> ack(EDS, "a", "b", nonce=8)
            << acked(EDS, nonce=8)
            >> ack(CDS, nonce=6)  # b is warm
            << acked(CDS, nonce=6)
            << response(RDS, "r", nonce=9)
            << response(ECDS, "e", nonce=10)
            >> ack(RDS, "r", nonce=9)
            << acked(RDS, nonce=9)
        )
        assert book
        assert CDS not in book.synced  # a is still there
        assert book >> ack(ECDS, "e", nonce=10) << acked(ECDS, nonce=10) << response(CDS, "b", nonce=11, of=AFTER)
        assert book >> ack(CDS, nonce=11) << acked(CDS, nonce=11)
        assert book.synced == {type_url: AFTER.version(type_url) for type_url in (CDS, EDS, LDS, RDS, ECDS)}

    def test_delta(self):
        book = (
            incremental()
            >> AFTER
            << response(CDS, "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> delta(EDS, nonce=7)
            << acked(EDS, nonce=7)
            >> delta(EDS, "b")
            << response(EDS, "b", nonce=8)
            >> delta(EDS, nonce=8)
            << acked(EDS, nonce=8)
            >> delta(CDS, nonce=6)
            << acked(CDS, nonce=6)
            << response(RDS, "r", nonce=9)
            << response(ECDS, "e", nonce=10)
            >> delta(ECDS, nonce=10)
            << acked(ECDS, nonce=10)
            >> delta(RDS, nonce=9)
            << acked(RDS, nonce=9)
            << response(CDS, nonce=11, removed=["a"])
            >> delta(EDS, unsubscribe=["a"])
            >> delta(CDS, nonce=11)
            << acked(CDS, nonce=11)
        )
        assert book
        assert book.synced == {type_url: AFTER.version(type_url) for type_url in (CDS, EDS, LDS, RDS, ECDS)}

    def test_endpoints_of_a_cluster_that_stays_go_after_the_clusters(self):
        assert (
            incremental()
            >> snapshot(cluster("b"), listener("l"), route("r", "to b"), extension("e", "for a"))
            << response(CDS, "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> delta(EDS, nonce=7)
            << acked(EDS, nonce=7)
            >> delta(CDS, nonce=6)
            << acked(CDS, nonce=6)
            << response(RDS, "r", nonce=8)
            >> delta(RDS, nonce=8)
            << acked(RDS, nonce=8)
            << response(CDS, nonce=9, removed=["a"])
            >> delta(CDS, nonce=9)  # still subscribed to its endpoints
            << acked(CDS, nonce=9)
            << response(EDS, nonce=10, removed=["a"])
        )


class TestRefusedOnTheWay:
    def test_a_refused_route_keeps_its_cluster_sotw(self):  # ours
        assert (
            sotw()
            >> AFTER
            << response(CDS, "a", "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> ack(EDS, "a", nonce=7)
            << acked(EDS, nonce=7)
            >> ack(CDS, nonce=6)
            << acked(CDS, nonce=6)
            << response(RDS, "r", nonce=8)
            << response(ECDS, "e", nonce=9)
            >> nack(RDS, "r", nonce=8)
            << nacked(RDS, nonce=8)
            >> ack(ECDS, "e", nonce=9)
            << acked(ECDS, nonce=9)
            >> AFTER.with_resources(RDS, [route("r", "to b, mended")])
            << response(RDS, "r", nonce=10)
            >> ack(RDS, "r", nonce=10)
            << acked(RDS, nonce=10)
            << response(CDS, "b", nonce=11)
        )

    def test_a_refused_route_keeps_its_cluster_delta(self):
        assert (
            incremental()
            >> AFTER
            << response(CDS, "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> delta(EDS, nonce=7)
            << acked(EDS, nonce=7)
            >> delta(CDS, nonce=6)
            << acked(CDS, nonce=6)
            << response(RDS, "r", nonce=8)
            << response(ECDS, "e", nonce=9)
            >> delta(RDS, nonce=8, error="bad")
            << nacked(RDS, nonce=8)
            >> delta(ECDS, nonce=9)
            << acked(ECDS, nonce=9)
            >> AFTER.with_resources(RDS, [route("r", "to b, mended")])
            << response(RDS, "r", nonce=10)
            >> delta(RDS, nonce=10)
            << acked(RDS, nonce=10)
            << response(CDS, nonce=11, removed=["a"])
        )

    def test_a_refused_cluster_does_not_keep_the_rest_back(self):
        """One bad cluster: every other change still arrives, only removals wait."""
        assert (
            sotw()
            >> AFTER
            << response(CDS, "a", "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> ack(EDS, "a", nonce=7)
            << acked(EDS, nonce=7)
            >> nack(CDS, nonce=6)
            << nacked(CDS, nonce=6)
            << response(RDS, "r", nonce=8)
            << response(ECDS, "e", nonce=9)
            >> ack(RDS, "r", nonce=8)
            << acked(RDS, nonce=8)
            >> ack(ECDS, "e", nonce=9)
            << acked(ECDS, nonce=9)
            >> AFTER.with_resources(CDS, [cluster("b", "mended")])
            << response(CDS, "a", "b", nonce=10)
            << response(EDS, "a", nonce=11)
            >> ack(CDS, nonce=10)
            << acked(CDS, nonce=10)
            << response(CDS, "b", nonce=12)
        )


class TestChangedMeanwhile:
    def test_a_cluster_that_comes_back_before_it_was_removed(self):
        assert (
            sotw()
            >> AFTER
            << response(CDS, "a", "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> ack(EDS, "a", nonce=7)
            << acked(EDS, nonce=7)
            >> BEFORE
            >> ack(CDS, nonce=6)
            << acked(CDS, nonce=6)
            << response(CDS, "a", nonce=8)  # b goes: nothing was ever told to refer to it
        )

    def test_the_newest_snapshot_counts_at_each_step(self):
        third = snapshot(
            cluster("c"), endpoints("c"), listener("l"), route("r", "to c"), extension("e", "for c"), extension("f")
        )
        assert (
            incremental()
            >> AFTER
            << response(CDS, "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> delta(EDS, nonce=7)
            << acked(EDS, nonce=7)
            >> third
            >> delta(CDS, nonce=6)
            << acked(CDS, nonce=6)
            << response(CDS, "c", nonce=8)
            << response(EDS, "a", nonce=9)
            >> delta(CDS, nonce=8)
            << acked(CDS, nonce=8)
            << response(RDS, "r", nonce=10, of=third)
            << response(ECDS, "e", nonce=11, of=third)
            >> delta(RDS, nonce=10)
            << acked(RDS, nonce=10)
            >> delta(ECDS, nonce=11)
            << acked(ECDS, nonce=11)
            << response(CDS, nonce=12, removed=["a", "b"])
        )


class TestWarming:
    def test_endpoints_follow_a_changed_cluster_though_unchanged(self):  # envoyproxy/envoy#13009
        later = BEFORE.with_resources(CDS, [cluster("a", 2)])
        assert sotw() >> later << response(CDS, "a", nonce=6) << response(EDS, "a", nonce=7)
        assert incremental() >> later << response(CDS, "a", nonce=6) << response(EDS, "a", nonce=7)

    def test_routes_follow_a_changed_listener_though_unchanged(self):
        later = BEFORE.with_resources(LDS, [listener("l", 2)])
        assert sotw() >> later << response(LDS, "l", nonce=6) << response(RDS, "r", nonce=7)
        assert incremental() >> later << response(LDS, "l", nonce=6) << response(RDS, "r", nonce=7)

    def test_nothing_follows_a_removal(self):
        more = BEFORE.with_resources(LDS, [listener("l"), listener("m")])
        book = incremental() >> more << response(LDS, "m", nonce=6) << response(RDS, "r", nonce=7)
        book = book >> delta(LDS, nonce=6) << acked(LDS, nonce=6) >> delta(RDS, nonce=7) << acked(RDS, nonce=7)
        assert book >> BEFORE << response(LDS, nonce=8, removed=["m"])

    def test_a_reconnected_client_gets_endpoints_after_a_changed_cluster(self):
        assert (
            Playbook(DeltaStream())
            >> BEFORE
            >> delta(CDS, has=[cluster("a", "older")])
            << response(CDS, "a", nonce=1)
            >> delta(EDS, "a", has=[endpoints("a")])
            << response(EDS, "a", nonce=2)
        )

    def test_a_reconnected_client_gets_none_after_unchanged_clusters(self):
        assert (
            Playbook(DeltaStream())
            >> BEFORE
            >> delta(CDS, has=[cluster("a")])
            << response(CDS, nonce=1)
            >> delta(EDS, "a", has=[endpoints("a")])
        )

    def test_what_is_asked_for_does_not_wait(self):
        """A cluster that warms may be waiting for it."""
        assert (
            sotw()
            >> AFTER
            << response(CDS, "a", "b", nonce=6)
            << response(EDS, "a", nonce=7)
            >> ack(EDS, "a", nonce=7)
            << acked(EDS, nonce=7)
            >> request(ECDS, "e", "f", nonce=5)
            << response(ECDS, "f", nonce=8)
        )


class TestOneInFlight:
    def test_per_type(self):
        assert (
            incremental()
            >> BEFORE.with_resources(ECDS, [extension("e", 2), extension("f")])
            << response(ECDS, "e", nonce=6)
            >> BEFORE.with_resources(ECDS, [extension("e", 3), extension("f")])
            >> delta(ECDS, "f")
            >> BEFORE.with_resources(LDS, [listener("l", 2)])
            << response(LDS, "l", nonce=7)
            << response(RDS, "r", nonce=8)
            >> delta(ECDS, nonce=6)
            << acked(ECDS, nonce=6)
            << response(ECDS, "e", "f", nonce=9)
        )

    def test_endpoints_in_flight_do_not_keep_routes_back(self):
        assert (
            incremental()
            >> BEFORE.with_resources(EDS, [endpoints("a", 2)])
            << response(EDS, "a", nonce=6)
            >> BEFORE.with_resources(EDS, [endpoints("a", 2)]).with_resources(RDS, [route("r", 2)])
            << response(RDS, "r", nonce=7)
        )

    def test_unsent_endpoints_keep_routes_back(self):
        later = BEFORE.with_resources(EDS, [endpoints("a", 3)]).with_resources(RDS, [route("r", 2)])
        assert (
            incremental()
            >> BEFORE.with_resources(EDS, [endpoints("a", 2)])
            << response(EDS, "a", nonce=6)
            >> later
            >> delta(EDS, nonce=6)
            << acked(EDS, nonce=6)
            << response(EDS, "a", nonce=7)
            << response(RDS, "r", nonce=8)
        )
