"""Transcripts of delta streams. Names in brackets: the same case in go-control-plane or Istio."""

from __future__ import annotations

import pytest

from tests.support.xds import (
    CDS,
    ECDS,
    EDS,
    LDS,
    RDS,
    SDS,
    Playbook,
    acked,
    closed,
    cluster,
    delta,
    endpoints,
    extension,
    listener,
    nacked,
    resource,
    response,
    route,
    snapshot,
    stale,
)
from xds_server.protocol.actions import Status
from xds_server.protocol.delta import DeltaStream

A, B = cluster("a"), cluster("b")
UNKNOWN_TYPE = "type.googleapis.com/unheard.of"


def playbook() -> Playbook:
    return Playbook(DeltaStream())


class TestFirstRequest:
    @pytest.mark.parametrize("type_url", [CDS, LDS])
    def test_wildcard_is_answered_with_everything(self, type_url):  # TestDeltaResponseHandlersWildcard
        now = snapshot(resource(type_url, "a"), resource(type_url, "b"))
        assert playbook() >> now >> delta(type_url) << response(type_url, "a", "b", nonce=1, of=now)

    @pytest.mark.parametrize("type_url", [CDS, EDS, LDS, RDS, SDS, ECDS])
    def test_names_are_answered_with_these(self, type_url):  # TestDeltaResponseHandlers
        now = snapshot(resource(type_url, "a"), resource(type_url, "b"), resource(type_url, "c"))
        assert playbook() >> now >> delta(type_url, "c", "a") << response(type_url, "a", "c", nonce=1, of=now)

    @pytest.mark.parametrize("type_url", [CDS, LDS])
    def test_wildcard_without_resources_is_answered_too(self, type_url):
        assert playbook() >> snapshot() >> delta(type_url) << response(type_url, nonce=1)

    def test_before_there_is_a_snapshot_waits_for_it(self):
        assert playbook() >> delta(CDS) >> snapshot(A) << response(CDS, "a", nonce=1)

    @pytest.mark.parametrize("type_url", [EDS, RDS, LDS, SDS, UNKNOWN_TYPE])
    def test_a_name_that_does_not_exist_is_told_and_stays_subscribed(self, type_url):  # go-control-plane #488
        assert (
            playbook()
            >> snapshot()
            >> delta(type_url, "a")
            << response(type_url, nonce=1, removed=["a"])
            >> delta(type_url, nonce=1)
            << acked(type_url, nonce=1)
            >> snapshot(resource(type_url, "a"))
            << response(type_url, "a", nonce=2)
        )

    def test_an_extension_that_does_not_exist_is_not_told(self):
        assert playbook() >> snapshot() >> delta(ECDS, "a") >> snapshot(extension("a")) << response(ECDS, "a", nonce=1)

    def test_without_node_or_type_closes_the_stream(self):  # TestDeltaAggregateRequestType
        assert playbook() >> delta(CDS, node="") << closed(Status.INVALID_ARGUMENT) >> delta(CDS)
        assert playbook() >> delta("") << closed(Status.INVALID_ARGUMENT)


class TestReconnect:
    def test_what_the_client_has_is_not_sent(self):  # TestDeltaCDSReconnect, DeltaInitialResourceVersionsSet
        now = snapshot(A, cluster("b", 2), cluster("c"))
        assert playbook() >> now >> delta(CDS, has=[A, B]) << response(CDS, "b", "c", nonce=1)

    def test_what_is_gone_is_removed(self):  # TestDeltaReconnectRequests
        assert (
            playbook()
            >> snapshot(listener("a"))
            >> delta(LDS, has=[listener("a"), listener("gone")])
            << response(LDS, nonce=1, removed=["gone"])
        )

    def test_gone_clusters_wait_for_the_routes(self):
        """The same order as without a reconnect, across a restart of the server."""
        assert (
            playbook()
            >> snapshot(B, listener("l"), route("r", "to b"))
            >> delta(CDS, has=[A])
            << response(CDS, "b", nonce=1)
            >> delta(LDS, has=[listener("l")])
            >> delta(RDS, "r", has=[route("r", "to a")])
            >> delta(CDS, nonce=1)
            << acked(CDS, nonce=1)
            << response(LDS, nonce=2)
            << response(RDS, "r", nonce=3)
            >> delta(LDS, nonce=2)
            << acked(LDS, nonce=2)
            >> delta(RDS, nonce=3)
            << acked(RDS, nonce=3)
            << response(CDS, nonce=4, removed=["a"])
        )

    def test_named_resources_that_are_current_are_not_answered(self):
        now = snapshot(extension("a"))
        book = playbook() >> now >> delta(ECDS, "a", has=[extension("a")])
        assert book
        assert book.synced == {ECDS: now.version(ECDS)}

    def test_endpoints_are_sent_again_where_clusters_are_warming(self):
        """Such an Envoy asks for clusters only when they are warm; what they wait for was perhaps lost."""
        assert (
            playbook()
            >> snapshot(A, endpoints("a"))
            >> delta(EDS, "a", has=[endpoints("a")])
            << response(EDS, "a", nonce=1)
        )

    def test_an_old_envoy_that_names_everything(self):  # hashicorp/consul#12174
        assert (
            playbook()
            >> snapshot(A, cluster("b", 2))
            >> delta(CDS, "a", "b", has=[A, B])
            << response(CDS, "b", nonce=1)
        )

    def test_after_a_nack_sends_what_the_client_has_not(self):  # ours: NACK, then reconnect
        assert (
            playbook()
            >> snapshot(extension("e", "bad"), extension("f"))
            >> delta(ECDS, "e", "f", has=[extension("e", "good"), extension("f")])
            << response(ECDS, "e", nonce=1)
            >> delta(ECDS, nonce=1, error="bad")
            << nacked(ECDS, nonce=1)
            >> snapshot(extension("e", "fixed"), extension("f"))
            << response(ECDS, "e", nonce=2)
        )


class TestNonces:
    def test_a_stale_nonce_still_applies_its_subscription(self):  # ours; Istio drops the request
        assert (
            playbook()
            >> snapshot(endpoints("a"), endpoints("b"))
            >> delta(EDS, "a")
            << response(EDS, "a", nonce=1)
            >> delta(EDS, "b", nonce="from another life")
            << stale(EDS, nonce="from another life")
            >> delta(EDS, nonce=1)
            << acked(EDS, nonce=1)
            << response(EDS, "b", nonce=2)
        )

    def test_a_spontaneous_request_is_no_answer(self):
        assert (
            playbook()
            >> snapshot(endpoints("a"), endpoints("b"))
            >> delta(EDS, "a")
            << response(EDS, "a", nonce=1)
            >> delta(EDS, "b")
            >> snapshot(endpoints("a", 2), endpoints("b"))
            >> delta(EDS, nonce=1)
            << acked(EDS, nonce=1)
            << response(EDS, "a", "b", nonce=2)
        )

    def test_an_ack_that_comes_twice_is_stale(self):
        assert (
            playbook()
            >> snapshot(A)
            >> delta(CDS)
            << response(CDS, "a", nonce=1)
            >> delta(CDS, nonce=1)
            << acked(CDS, nonce=1)
            >> delta(CDS, nonce=1)
            << stale(CDS, nonce=1)
        )


class TestUpdates:
    def test_only_what_changed(self):  # TestDeltaCDS, TestSnapshotCacheDeltaWatch
        assert (
            playbook()
            >> snapshot(listener("a"), listener("b"))
            >> delta(LDS)
            << response(LDS, "a", "b", nonce=1)
            >> delta(LDS, nonce=1)
            << acked(LDS, nonce=1)
            >> snapshot(listener("a"), listener("b", 2), listener("c"))
            << response(LDS, "b", "c", nonce=2)
        )

    def test_removals(self):  # TestDeltaRemoveResources
        assert (
            playbook()
            >> snapshot(listener("a"), listener("b"))
            >> delta(LDS)
            << response(LDS, "a", "b", nonce=1)
            >> delta(LDS, nonce=1)
            << acked(LDS, nonce=1)
            >> snapshot(listener("a", 2))
            << response(LDS, "a", nonce=2, removed=["b"])
            >> delta(LDS, nonce=2)
            << acked(LDS, nonce=2)
            >> snapshot(listener("a", 2))
        )

    def test_removed_and_back(self):
        assert (
            playbook()
            >> snapshot(route("a"))
            >> delta(RDS, "a")
            << response(RDS, "a", nonce=1)
            >> delta(RDS, nonce=1)
            << acked(RDS, nonce=1)
            >> snapshot()
            << response(RDS, nonce=2, removed=["a"])
            >> snapshot(route("a"))
            >> delta(RDS, nonce=2)
            << acked(RDS, nonce=2)
            << response(RDS, "a", nonce=3)
        )

    def test_extension_configurations_are_never_removed(self):  # Istio: neverRemoveDelta; envoyproxy/envoy#32823
        book = (
            playbook()
            >> snapshot(extension("a"), extension("b"))
            >> delta(ECDS, "a", "b")
            << response(ECDS, "a", "b", nonce=1)
            >> delta(ECDS, nonce=1)
            << acked(ECDS, nonce=1)
            >> snapshot(extension("b"))
            >> snapshot(extension("a"), extension("b"))
            >> snapshot(extension("a", 2), extension("b"))
            << response(ECDS, "a", nonce=2)
        )
        assert book


class TestNack:
    def test_is_not_sent_again_until_it_changes(self):  # ours
        book = (
            playbook()
            >> snapshot(extension("bad"), extension("other"))
            >> delta(ECDS, "bad")
            << response(ECDS, "bad", nonce=1)
            >> delta(ECDS, nonce=1, error="no")
            << nacked(ECDS, nonce=1, reason="no")
            >> snapshot(extension("bad"), extension("other", 2))
            >> delta(ECDS, "other")
            << response(ECDS, "other", nonce=2)
            >> delta(ECDS, nonce=2)
            << acked(ECDS, nonce=2)
        )
        assert book
        assert ECDS not in book.synced
        later = snapshot(extension("bad", "fixed"), extension("other", 2))
        assert book >> later << response(ECDS, "bad", nonce=3) >> delta(ECDS, nonce=3) << acked(ECDS, nonce=3)
        assert book.synced[ECDS] == later.version(ECDS)

    def test_then_back_to_the_good_one_is_sent(self):
        assert (
            playbook()
            >> snapshot(A)
            >> delta(CDS)
            << response(CDS, "a", nonce=1)
            >> delta(CDS, nonce=1)
            << acked(CDS, nonce=1)
            >> snapshot(cluster("a", "bad"))
            << response(CDS, "a", nonce=2)
            >> delta(CDS, nonce=2, error="bad")
            << nacked(CDS, nonce=2)
            >> snapshot(A)
            << response(CDS, "a", nonce=3)
        )

    def test_of_a_removal_is_not_repeated(self):
        assert (
            playbook()
            >> snapshot(listener("a"))
            >> delta(LDS)
            << response(LDS, "a", nonce=1)
            >> delta(LDS, nonce=1)
            << acked(LDS, nonce=1)
            >> snapshot()
            << response(LDS, nonce=2, removed=["a"])
            >> delta(LDS, nonce=2, error="bad")
            << nacked(LDS, nonce=2)
            >> snapshot(A)
            >> snapshot(listener("b"))
            << response(LDS, "b", nonce=3)
            >> delta(LDS, nonce=3)
            << acked(LDS, nonce=3)
            >> snapshot(listener("a", 2), listener("b"))
            << response(LDS, "a", nonce=4)
        )

    def test_what_came_with_a_name_that_is_not_wanted_any_more_is_sent_without_it(
        self,
    ):  # ours, found by the properties
        book = (
            playbook()
            >> snapshot(route("bad"), route("good"))
            >> delta(RDS, "bad", "good")
            << response(RDS, "bad", "good", nonce=1)
            >> delta(RDS, nonce=1, error="no")
            << nacked(RDS, nonce=1, reason="no")
            >> delta(RDS, unsubscribe=["bad"])
            << response(RDS, "good", nonce=2)
            >> delta(RDS, nonce=2)
            << acked(RDS, nonce=2)
        )
        assert book
        assert RDS in book.synced

    def test_the_same_where_it_was_not_wanted_before_the_nack(self):
        book = (
            playbook()
            >> snapshot(route("bad"), route("good"))
            >> delta(RDS, "bad", "good")
            << response(RDS, "bad", "good", nonce=1)
            >> delta(RDS, unsubscribe=["bad"])
            >> delta(RDS, nonce=1, error="no")
            << nacked(RDS, nonce=1, reason="no")
            << response(RDS, "good", nonce=2)
            >> delta(RDS, nonce=2, error="no")
            << nacked(RDS, nonce=2, reason="no")  # and now it is refused by itself
        )
        assert book
        assert RDS not in book.synced


class TestWildcard:  # TestDeltaWildcardSubscriptions
    def test_legacy_survives_a_named_one(self):
        assert (
            playbook()
            >> snapshot(listener("a"), listener("b"))
            >> delta(LDS)
            << response(LDS, "a", "b", nonce=1)
            >> delta(LDS, "a", nonce=1)
            << acked(LDS, nonce=1)
            << response(LDS, "a", nonce=2)  # it was asked for, so it is answered
            >> delta(LDS, nonce=2)
            << acked(LDS, nonce=2)
            >> snapshot(listener("a"), listener("b", 2))
            << response(LDS, "b", nonce=3)
        )

    def test_unsubscribing_the_wildcard_leaves_the_named(self):
        assert (
            playbook()
            >> snapshot(listener("a"), listener("b"))
            >> delta(LDS, "*", "a")
            << response(LDS, "a", "b", nonce=1)
            >> delta(LDS, unsubscribe=["*"], nonce=1)
            << acked(LDS, nonce=1)
            >> snapshot(listener("a"), listener("b", 2))
            >> snapshot(listener("a", 2), listener("b", 2))
            << response(LDS, "a", nonce=2)
            >> delta(LDS, "*", nonce=2)
            << acked(LDS, nonce=2)
            << response(LDS, "b", nonce=3)
        )

    def test_unsubscribing_a_name_under_the_wildcard_sends_it_or_removes_it(self):
        book = (
            playbook()
            >> snapshot(listener("a"))
            >> delta(LDS, "*", "a", "x")
            << response(LDS, "a", nonce=1, removed=["x"])
            >> delta(LDS, unsubscribe=["a", "x"], nonce=1)
            << acked(LDS, nonce=1)
            << response(LDS, "a", nonce=2, removed=["x"])
        )
        assert book

    def test_unsubscribing_what_was_never_subscribed_is_nothing(self):
        assert (
            playbook()
            >> snapshot(listener("a"))
            >> delta(LDS)
            << response(LDS, "a", nonce=1)
            >> delta(LDS, unsubscribe=["a"], nonce=1)
            << acked(LDS, nonce=1)
        )

    def test_a_first_request_with_names_is_no_wildcard(self):
        assert (
            playbook()
            >> snapshot(A, B)
            >> delta(CDS, "a")
            << response(CDS, "a", nonce=1)
            >> delta(CDS, nonce=1)
            << acked(CDS, nonce=1)
            >> snapshot(A, cluster("b", 2))
        )


class TestSubscription:
    def test_asked_for_again_is_sent_again(self):
        """The client may have dropped it and regained interest before it could say so."""
        assert (
            playbook()
            >> snapshot(endpoints("a"))
            >> delta(EDS, "a")
            << response(EDS, "a", nonce=1)
            >> delta(EDS, "a", nonce=1)
            << acked(EDS, nonce=1)
            << response(EDS, "a", nonce=2)
        )

    def test_unsubscribed_is_neither_sent_nor_removed(self):  # TestDeltaUnsub
        assert (
            playbook()
            >> snapshot(endpoints("a"), endpoints("b"))
            >> delta(EDS, "a", "b")
            << response(EDS, "a", "b", nonce=1)
            >> delta(EDS, unsubscribe=["a"], nonce=1)
            << acked(EDS, nonce=1)
            >> snapshot(endpoints("b"))
            >> snapshot(endpoints("a", 2), endpoints("b"))
        )

    def test_unsubscribed_while_due_is_not_sent(self):
        assert (
            playbook()
            >> snapshot(route("a"))
            >> delta(RDS, "a")
            << response(RDS, "a", nonce=1)
            >> snapshot(route("a", 2))
            >> delta(RDS, unsubscribe=["a"])
            >> delta(RDS, nonce=1)
            << acked(RDS, nonce=1)
        )

    def test_streams_do_not_share_anything(self):  # TestDeltaMultipleStreams
        now = snapshot(A)
        first = playbook() >> now >> delta(CDS) << response(CDS, "a", nonce=1)
        second = playbook() >> now >> delta(CDS) << response(CDS, "a", nonce=1)
        assert first >> delta(CDS, nonce=1) << acked(CDS, nonce=1)
        assert second >> delta(CDS, nonce=1, error="bad") << nacked(CDS, nonce=1)
