"""Transcripts of state-of-the-world streams. Names in brackets: the same case in go-control-plane or Istio."""

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
    ack,
    acked,
    closed,
    cluster,
    endpoints,
    extension,
    listener,
    nack,
    nacked,
    request,
    resource,
    response,
    route,
    snapshot,
    stale,
)
from xds_server.protocol.actions import Status
from xds_server.protocol.sotw import SotwStream

A, B = cluster("a"), cluster("b")


def playbook() -> Playbook:
    return Playbook(SotwStream())


class TestFirstRequest:
    @pytest.mark.parametrize("type_url", [CDS, LDS])
    def test_wildcard_is_answered_with_everything(self, type_url):  # TestResponseHandlers
        now = snapshot(resource(type_url, "a"), resource(type_url, "b"))
        assert playbook() >> now >> request(type_url) << response(type_url, "a", "b", nonce=1, of=now)

    @pytest.mark.parametrize("type_url", [EDS, RDS, SDS, ECDS])
    def test_names_are_answered_with_these(self, type_url):
        now = snapshot(resource(type_url, "a"), resource(type_url, "b"), resource(type_url, "c"))
        assert playbook() >> now >> request(type_url, "c", "a") << response(type_url, "a", "c", nonce=1, of=now)

    @pytest.mark.parametrize("type_url", [CDS, LDS])
    def test_wildcard_without_resources_is_answered_too(self, type_url):  # replyIfEmpty
        assert playbook() >> snapshot() >> request(type_url) << response(type_url, nonce=1)

    def test_before_there_is_a_snapshot_waits_for_it(self):  # TestAvertPanicForWatchOnNonExistentSnapshot
        assert playbook() >> request(CDS) >> snapshot(A) << response(CDS, "a", nonce=1)

    def test_without_names_is_nothing_for_types_without_wildcard(self):
        assert (
            playbook() >> snapshot(endpoints("a")) >> request(EDS) >> request(EDS, "a") << response(EDS, "a", nonce=1)
        )

    def test_of_a_name_that_does_not_exist_yet(self):  # ...WatchWithResourcePreviouslyNotRequested
        assert (
            playbook()
            >> snapshot()
            >> request(RDS, "a")
            >> snapshot(route("b"))
            >> snapshot(route("a"), route("b"))
            << response(RDS, "a", nonce=1)
        )

    def test_of_an_unknown_type_is_left_unanswered(self):
        assert (
            playbook()
            >> snapshot(A)
            >> request("type.googleapis.com/unheard.of", "x")
            >> request(CDS)
            << response(CDS, "a", nonce=1)
        )

    def test_without_node_closes_the_stream(self):  # TestAdsBadId
        assert playbook() >> request(CDS, node="") << closed(Status.INVALID_ARGUMENT) >> request(CDS) >> snapshot(A)

    def test_without_type_closes_the_stream(self):  # TestAggregateRequestType
        assert playbook() >> request("") << closed(Status.INVALID_ARGUMENT)

    def test_node_is_needed_once(self):
        book = playbook() >> snapshot(A, endpoints("a")) >> request(CDS) << response(CDS, "a", nonce=1)
        assert book >> request(EDS, "a", node="") << response(EDS, "a", nonce=2)
        assert book.stream.node is not None
        assert book.stream.node.id == "proxy"


class TestNonces:
    def test_increase_over_all_types(self):  # TestVersionNonce
        assert (
            playbook()
            >> snapshot(A, listener("l"))
            >> request(CDS)
            << response(CDS, "a", nonce=1)
            >> ack(CDS, nonce=1)
            << acked(CDS, nonce=1)
            >> request(LDS)
            << response(LDS, "l", nonce=2)
            >> ack(LDS, nonce=2)
            << acked(LDS, nonce=2)
            >> snapshot(A, B, listener("l"))
            << response(CDS, "a", "b", nonce=3)
        )

    def test_a_stale_nonce_is_ignored(self):  # TestStaleNonce
        assert (
            playbook()
            >> snapshot(endpoints("a"), endpoints("b"))
            >> request(EDS, "a")
            << response(EDS, "a", nonce=1)
            >> ack(EDS, "a", nonce=1)
            << acked(EDS, nonce=1)
            >> snapshot(endpoints("a", 2), endpoints("b"))
            << response(EDS, "a", nonce=2)
            >> request(EDS, "a", "b", nonce=1)  # on its way when the response was
            << stale(EDS, nonce=1)
            >> ack(EDS, "a", "b", nonce=2)  # repeated in answer to it
            << acked(EDS, nonce=2)
            << response(EDS, "b", nonce=3)
        )

    def test_a_nonce_of_another_stream_starts_the_type_afresh(self):  # TestAdsReconnect
        now = snapshot(A)
        assert (
            playbook() >> now >> request(CDS, nonce=77, version=now.version(CDS)) << response(CDS, "a", nonce=1, of=now)
        )

    def test_an_ack_that_comes_twice_changes_nothing(self):
        assert (
            playbook()
            >> snapshot(A)
            >> request(CDS)
            << response(CDS, "a", nonce=1)
            >> ack(CDS, nonce=1)
            << acked(CDS, nonce=1)
            >> ack(CDS, nonce=1)
        )


class TestAck:
    def test_is_recorded_and_not_answered(self):  # TestShouldRespond/ack
        now = snapshot(A)
        book = playbook() >> now >> request(CDS) << response(CDS, "a", nonce=1)
        assert not book.synced
        assert book >> ack(CDS, nonce=1) << acked(CDS, nonce=1)
        assert book.synced == {CDS: now.version(CDS)}

    def test_changes_meanwhile_are_one_response(self):
        assert (
            playbook()
            >> snapshot(A)
            >> request(CDS)
            << response(CDS, "a", nonce=1)
            >> snapshot(cluster("a", 2))
            >> snapshot(cluster("a", 3))
            >> ack(CDS, nonce=1)
            << acked(CDS, nonce=1)
            << response(CDS, "a", nonce=2, of=snapshot(cluster("a", 3)))
        )

    def test_a_change_and_back_is_no_response(self):
        assert (
            playbook()
            >> snapshot(A)
            >> request(CDS)
            << response(CDS, "a", nonce=1)
            >> snapshot(B)
            >> snapshot(A)
            >> ack(CDS, nonce=1)
            << acked(CDS, nonce=1)
        )

    def test_what_nobody_subscribes_to_is_in_step_without_a_response(self):  # TestAdsPushScoping
        later = snapshot(endpoints("a"), endpoints("b", 2))
        book = playbook() >> snapshot(endpoints("a"), endpoints("b")) >> request(EDS, "a")
        assert book << response(EDS, "a", nonce=1) >> ack(EDS, "a", nonce=1) << acked(EDS, nonce=1) >> later
        assert book.synced == {EDS: later.version(EDS)}


class TestNack:
    def test_is_recorded_and_not_sent_again(self):  # ours: go-control-plane #46, #962
        book = (
            playbook()
            >> snapshot(A)
            >> request(CDS)
            << response(CDS, "a", nonce=1)
            >> nack(CDS, nonce=1, error="no such filter")
            << nacked(CDS, nonce=1, reason="no such filter")
            >> request(CDS, nonce=1)
            >> snapshot(A)
            >> snapshot(A, endpoints("x"))
        )
        assert book
        assert not book.synced

    def test_then_a_fix(self):  # ours
        assert (
            playbook()
            >> snapshot(A)
            >> request(CDS)
            << response(CDS, "a", nonce=1)
            >> nack(CDS, nonce=1)
            << nacked(CDS, nonce=1)
            >> snapshot(cluster("a", "fixed"))
            << response(CDS, "a", nonce=2)
            >> ack(CDS, nonce=2)
            << acked(CDS, nonce=2)
        )

    def test_then_back_to_what_was_good_is_sent(self):
        """The client may have applied a part of what it refused."""
        assert (
            playbook()
            >> snapshot(A)
            >> request(CDS)
            << response(CDS, "a", nonce=1)
            >> ack(CDS, nonce=1)
            << acked(CDS, nonce=1)
            >> snapshot(A, cluster("bad"))
            << response(CDS, "a", "bad", nonce=2)
            >> nack(CDS, nonce=2)
            << nacked(CDS, nonce=2)
            >> snapshot(A)
            << response(CDS, "a", "bad", nonce=3)  # nothing refers to it: but the client may have it, ...
            >> ack(CDS, nonce=3)
            << acked(CDS, nonce=3)
            << response(CDS, "a", nonce=4)  # ... so it goes last, as always
        )

    def test_of_a_fix_that_was_in_time(self):
        """The fix arrived while the bad one was in flight."""
        assert (
            playbook()
            >> snapshot(extension("e", "bad"))
            >> request(ECDS, "e")
            << response(ECDS, "e", nonce=1)
            >> snapshot(extension("e", "fixed"))
            >> nack(ECDS, "e", nonce=1)
            << nacked(ECDS, nonce=1)
            << response(ECDS, "e", nonce=2)
        )

    def test_of_one_resource_leaves_the_others_alone(self):
        assert (
            playbook()
            >> snapshot(extension("bad"), extension("c"))
            >> request(ECDS, "bad")
            << response(ECDS, "bad", nonce=1)
            >> nack(ECDS, "bad", nonce=1)
            << nacked(ECDS, nonce=1)
            >> request(ECDS, "bad", "c", nonce=1)
            << response(ECDS, "c", nonce=2)
            >> ack(ECDS, "bad", "c", nonce=2)
            << acked(ECDS, nonce=2)
            >> snapshot(extension("bad"), extension("c", 2))
            << response(ECDS, "c", nonce=3)
        )

    def test_of_several_sends_all_of_them_with_the_fix(self):
        """A client stops at the first bad one: those after it were not applied."""
        assert (
            playbook()
            >> snapshot(extension("bad"), extension("good"))
            >> request(ECDS, "bad", "good")
            << response(ECDS, "bad", "good", nonce=1)
            >> nack(ECDS, "bad", "good", nonce=1)
            << nacked(ECDS, nonce=1)
            >> snapshot(extension("bad", "fixed"), extension("good"))
            << response(ECDS, "bad", "good", nonce=2)
        )

    def test_then_unsubscribed_and_asked_for_again(self):
        assert (
            playbook()
            >> snapshot(extension("e"))
            >> request(ECDS, "e")
            << response(ECDS, "e", nonce=1)
            >> nack(ECDS, "e", nonce=1)
            << nacked(ECDS, nonce=1)
            >> request(ECDS, nonce=1)
            >> request(ECDS, "e", nonce=1)
            << response(ECDS, "e", nonce=2)
        )


class TestSubscription:
    def test_a_new_name_with_old_version_and_nonce_is_answered(self):  # TestShouldRespond/resources change
        assert (
            playbook()
            >> snapshot(endpoints("a"), endpoints("b"))
            >> request(EDS, "a")
            << response(EDS, "a", nonce=1)
            >> ack(EDS, "a", nonce=1)
            << acked(EDS, nonce=1)
            >> request(EDS, "a", "b", nonce=1)
            << response(EDS, "b", nonce=2)
        )

    def test_a_name_less_is_not_answered(self):  # TestAdsUnsubscribe, TestShouldRespond/unsubscribe EDS
        assert (
            playbook()
            >> snapshot(endpoints("a"), endpoints("b"))
            >> request(EDS, "a", "b")
            << response(EDS, "a", "b", nonce=1)
            >> ack(EDS, "b", nonce=1)
            << acked(EDS, nonce=1)
            >> snapshot(endpoints("a", 2), endpoints("b"))
        )

    def test_what_was_unsubscribed_while_due_is_not_sent(self):  # ...DropStaleResponseAfterUnsubscribe
        assert (
            playbook()
            >> snapshot(route("a"))
            >> request(RDS, "a")
            << response(RDS, "a", nonce=1)
            >> snapshot(route("a", 2))
            >> ack(RDS, "b", nonce=1)
            << acked(RDS, nonce=1)
        )

    def test_a_changed_name_is_answered_with_the_new_one(self):  # TestEnvoyRDSUpdatedRouteRequest
        assert (
            playbook()
            >> snapshot(route("old"), route("new"))
            >> request(RDS, "old")
            << response(RDS, "old", nonce=1)
            >> ack(RDS, "new", nonce=1)
            << acked(RDS, nonce=1)
            << response(RDS, "new", nonce=2)
        )

    def test_no_names_after_names_is_nothing(self):  # subscription: legacy mode properly handled
        assert (
            playbook()
            >> snapshot(A, B)
            >> request(CDS, "a")
            << response(CDS, "a", nonce=1)
            >> ack(CDS, nonce=1)
            << acked(CDS, nonce=1)
            << response(CDS, nonce=2)  # full state: absence takes it away
            >> ack(CDS, nonce=2)
            << acked(CDS, nonce=2)
            >> snapshot(cluster("a", 2), B)
        )

    def test_explicit_wildcard_and_back(self):  # subscription: new wildcard mode (from start)
        assert (
            playbook()
            >> snapshot(listener("a"), listener("b"))
            >> request(LDS, "*", "a")
            << response(LDS, "a", "b", nonce=1)
            >> ack(LDS, "a", nonce=1)
            << acked(LDS, nonce=1)
            << response(LDS, "a", nonce=2)
            >> ack(LDS, "*", "a", nonce=2)
            << acked(LDS, nonce=2)
            << response(LDS, "a", "b", nonce=3)
        )

    def test_explicit_wildcard_of_a_type_without_legacy(self):
        assert (
            playbook()
            >> snapshot(extension("a"), extension("b"))
            >> request(ECDS, "*")
            << response(ECDS, "a", "b", nonce=1)
        )

    def test_a_named_listener_that_does_not_exist_is_answered_without_it(self):
        assert (
            playbook()
            >> snapshot(listener("a"))
            >> request(LDS, "a")
            << response(LDS, "a", nonce=1)
            >> ack(LDS, "a", "x", nonce=1)
            << acked(LDS, nonce=1)
            << response(LDS, "a", nonce=2)
        )


class TestContent:
    def test_full_state_types_are_sent_whole(self):  # linear: Deletion/full-state
        assert (
            playbook()
            >> snapshot(listener("a"), listener("b"), listener("c"))
            >> request(LDS)
            << response(LDS, "a", "b", "c", nonce=1)
            >> ack(LDS, nonce=1)
            << acked(LDS, nonce=1)
            >> snapshot(listener("a", 2), listener("b"))
            << response(LDS, "a", "b", nonce=2)
        )

    def test_other_types_in_part(self):  # linear: Deletion/non full-state
        assert (
            playbook()
            >> snapshot(extension("a"), extension("b"), extension("c"))
            >> request(ECDS, "a", "b", "c")
            << response(ECDS, "a", "b", "c", nonce=1)
            >> ack(ECDS, "a", "b", "c", nonce=1)
            << acked(ECDS, nonce=1)
            >> snapshot(extension("a", 2), extension("b"))  # c is gone: its subscriber keeps it
            << response(ECDS, "a", nonce=2)
        )

    def test_a_reconnected_client_gets_everything_again(self):  # TestAdsReconnectAfterRestart
        now = snapshot(A, endpoints("a"), listener("l"), route("r"))
        versions = {type_url: now.version(type_url) for type_url in (CDS, EDS, LDS, RDS)}
        assert (
            playbook()
            >> now
            >> request(CDS, version=versions[CDS])
            << response(CDS, "a", nonce=1)
            >> request(EDS, "a", version=versions[EDS])
            << response(EDS, "a", nonce=2)
            >> request(LDS, version=versions[LDS])  # waits for the clusters' ACK, as any change
            >> ack(CDS, nonce=1)
            << acked(CDS, nonce=1)
            << response(LDS, "l", nonce=3)
            >> request(RDS, "r", version=versions[RDS])
            << response(RDS, "r", nonce=4)
        )
