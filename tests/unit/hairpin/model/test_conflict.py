"""Who may take which requests, and what the refused one reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hairpin.errors import ConflictError
from hairpin.model.conflict import OVERLAP, Holding, check_conflict
from hairpin.model.match_text import parse_match

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def holding(
    match: str,
    *,
    session="checkout-alice-1",
    owner="alice",
    since=NOON,
    workload="checkout",
    port=80,
    namespace="default",
    mirror=False,
):
    return Holding(
        session=session,
        owner=owner,
        since=since,
        namespace=namespace,
        workload=workload,
        port=port,
        match=parse_match(match),
        mirror=mirror,
    )


def new(match: str, **fields):
    return holding(match, **{"session": "", "owner": "bob", "since": None} | fields)


def refusal(*held, asked) -> str:
    with pytest.raises(ConflictError) as error:
        check_conflict(held, asked)
    return str(error.value)


def test_the_same_requests_are_refused_naming_owner_session_and_since_when():
    message = refusal(holding("header x-env=alice"), asked=new("header x-env=alice"))
    assert message == (
        "the requests of default/checkout:80 with header x-env=alice are held already, by alice in session checkout-alice-1 "
        "(header x-env=alice) since 2026-01-31 12:00:00 UTC; ask alice to stop it, or take others by --env or --match"
    )


@pytest.mark.parametrize("mirror", [False, True])
def test_who_takes_requests_and_who_gets_copies_of_them_are_not_in_each_others_way(mirror):
    held = holding("header x-env=alice", mirror=mirror)
    assert check_conflict([held], new("header x-env=alice", mirror=not mirror)) == []
    assert check_conflict([held], new("header y=1", mirror=not mirror)) == []


def test_copies_of_the_same_requests_are_one_sessions():
    message = refusal(holding("header x=1", mirror=True), asked=new("header x=1", mirror=True))
    assert message.startswith(
        "the copies of requests of default/checkout:80 with header x=1 are held already, by alice"
    )


def test_ones_own_session_is_in_the_way_too():
    message = refusal(holding("header x=1"), asked=new("header x=1", owner="alice"))
    assert "by you yourself" in message
    assert "`hairpin stop checkout-alice-1`" in message


@pytest.mark.parametrize(
    ("held", "asked", "how"),
    [
        ("header x=1", "header x=1 and path ^/a", "are among those held already"),
        ("header x=1 and path ^/a", "header x=1", "include some that are held already"),
        ("header x", "header x=1", "are among those held already"),
    ],
)
def test_requests_that_are_part_of_others_are_refused(held, asked, how):
    assert how in refusal(holding(held), asked=new(asked))


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("header x-env=alice", "header x-env=bob"),
        ("baggage env=alice", "baggage env=bob"),
        ("tracestate env=alice", "tracestate env=bob"),
        ("header x=1 and method GET", "header x=1 and method POST"),
    ],
)
def test_other_requests_are_free(held, asked):
    assert check_conflict([holding(held)], new(asked)) == []


def test_what_may_overlap_is_allowed_and_the_later_owner_told():
    [remark] = check_conflict([holding("header x=1")], new("header y=1"))
    assert remark.type == OVERLAP
    assert remark.message == (
        "session checkout-alice-1 of alice (header x=1) may match some of the same requests; it was there first and gets those"
    )


@pytest.mark.parametrize("place", [{"workload": "cart"}, {"port": 81}, {"namespace": "other"}])
def test_elsewhere_the_same_requests_are_free(place):
    assert check_conflict([holding("header x=1", **place)], new("header x=1")) == []


def test_the_oldest_is_named_first():
    later = holding("header x=1 and path /a", session="s-2", owner="carol", since=NOON + timedelta(seconds=1))
    assert "by alice" in refusal(later, holding("header x=1 and path /b"), asked=new("header x=1"))
    first, second = check_conflict([later, holding("path ^/b")], new("header y=1"))
    assert "of alice" in first.message
    assert "of carol" in second.message


def test_a_session_does_not_conflict_with_itself():
    assert check_conflict([holding("header x=1")], holding("header x=1")) == []
