"""What is made of what callers saw."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from bench.chaos.faults import Struck
from bench.chaos.measure import Result, add, table
from bench.chaos.records import (
    BYSTANDER,
    CLUSTER,
    LAPTOP,
    Counts,
    Kind,
    Record,
    executed,
    first_answer,
    laptop_again,
    longest_wait,
)


def record(sent: float, who: str = LAPTOP, *, kind: Kind = Kind.GET, took: float = 0.01, **more) -> Record:
    fields = {"kind": kind, "path": "/", "sent": sent, "begun": sent + took, "ended": sent + took} | more
    return Record(**({"status": 200, "who": who} | fields))


def reset(sent: float, kind: Kind = Kind.GET, **more) -> Record:
    return record(sent, "", kind=kind, begun=None, status=0, error="ConnectionResetError", **more)


def unavailable(sent: float, kind: Kind = Kind.GET, **more) -> Record:
    return record(sent, "", kind=kind, status=503, **more)


def cut(sent: float, kind: Kind = Kind.GET) -> Record:
    return record(sent, kind=kind, error="IncompleteReadError")


def result() -> Result:
    return Result(name="fault", what="a fault", alone=True, one_second=True)


@pytest.mark.parametrize("failed", [reset, unavailable])
def test_a_request_without_an_applications_answer_is_refused(failed):
    assert failed(1).refused and not failed(1).cut


def test_an_answer_that_began_and_did_not_end_is_cut():
    assert cut(1).cut and not cut(1).refused
    assert not record(1).cut and not record(1).refused


@pytest.mark.parametrize("failed", [reset, unavailable, cut])
def test_no_unmatched_request_may_fail(failed):
    counts = Counts()
    counts.add([failed(1, Kind.UNMATCHED), record(1, CLUSTER, kind=Kind.UNMATCHED)], Counter())
    assert counts.complaints() == ["1 unmatched requests failed"]


def test_a_matched_get_may_be_cut_and_no_more():
    counts = Counts()
    counts.add([cut(1), record(1, CLUSTER)], Counter())
    assert counts.complaints() == [] and counts.cut[Kind.GET] == 1 and counts.by_cluster[Kind.GET] == 1
    counts.add([reset(1), unavailable(1)], Counter())
    assert counts.complaints() == ["2 matched GETs failed before their response began"]


def test_what_must_not_have_failed_is_told_one_by_one():
    total = result()
    get = reset(3.5, took=0, ended=4.25)
    add(total, Struck(at=3.0), [get, cut(3.5), unavailable(3.5, Kind.POST), cut(3.5, Kind.UNMATCHED)], "")
    one, other = total.failures
    assert one == "GET /: no answer, sent +0.50 s from the fault, ended +1.25 s: ConnectionResetError"
    assert other.startswith("unmatched /: 200, sent +0.50 s")
    assert f"a fault: {one}" in total.complaints()


def test_posts_by_who_executed_them():
    journal = executed("laptop a\ncluster a\nlaptop b\nlaptop b\ncluster c\n")
    posts = [unavailable(1, Kind.POST, key=key) for key in "abcd"]
    counts = Counts()
    counts.add(posts, journal)
    assert (counts.both, counts.twice, counts.nobody, counts.refused[Kind.POST]) == (1, 1, 1, 4)
    assert len(counts.complaints()) == 2


def test_the_laptop_is_back_after_the_last_answer_of_the_cluster():
    records = [record(0.9), record(1.1, CLUSTER), record(1.2), record(1.3, CLUSTER), record(1.5, took=0.1), record(1.6)]
    assert laptop_again(records, 1.0) == pytest.approx(0.6)
    assert laptop_again(records[:4], 1.0) is None
    assert laptop_again([record(0.9), record(1.1)], 1.0) == 0


def test_waits_count_from_the_fault_for_what_was_in_flight():
    records = [
        record(0.5, took=0.1),
        record(0.8, CLUSTER, took=2.2),
        record(2.0, CLUSTER, took=0.7),
        unavailable(9, Kind.POST),
    ]
    assert longest_wait(records, 1.0) == pytest.approx(2.0)
    assert first_answer(records, 1.0) == pytest.approx(1.7)


def test_only_what_was_not_over_at_the_fault_counts():
    total = result()
    add(total, Struck(at=1.0), [record(0.5), record(0.995, CLUSTER), record(1.4)], "")
    assert total.counts.sent[Kind.GET] == 2
    assert total.complaints() == []


def test_posts_without_a_tunnel_must_be_the_clusters():
    total = result()
    posts = [record(sent, CLUSTER, kind=Kind.POST, key=str(sent)) for sent in (1.0, 2.1, 2.2)]
    posts += [unavailable(2.3, Kind.POST, key="x"), unavailable(4, Kind.POST, key="y")]
    add(total, Struck(at=0.0, no_tunnel=(2.0, 3.0)), [*posts, record(5)], "")
    assert (total.no_tunnel, total.no_tunnel_lost) == (3, 1)
    assert total.complaints() == ["a fault: 1 POSTs without a tunnel were not answered by the cluster"]


def test_another_laptop_is_not_to_be_disturbed_by_one_laptops_fault():
    answers = [
        record(2, BYSTANDER, kind=Kind.BYSTANDER),
        record(2, CLUSTER, kind=Kind.BYSTANDER),
        cut(2, Kind.BYSTANDER),
    ]
    for alone in (True, False):
        total = dataclasses.replace(result(), alone=alone, counts=Counts())
        add(total, Struck(at=1.0), [*answers, record(2)], "")
        assert total.counts.disturbed == 2
        assert len(total.complaints()) == alone
    total.counts.add([unavailable(2, Kind.BYSTANDER)], Counter())
    assert total.complaints() == ["a fault: 1 bystander's requests failed before their response began"]


def test_times_are_judged_with_slack():
    total = result()
    add(total, Struck(at=1.0), [record(1.0, CLUSTER, took=4), record(2.5)], "")
    assert len(total.complaints()) == 2
    assert total.complaints(slack=3) == []


def test_every_row_of_the_table_is_as_wide_as_its_head():
    total = result()
    add(total, Struck(at=1.0, ready=1.2), [record(1.0, CLUSTER), record(1.5)], "")
    _, *lines = table([total, result()]).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[2].startswith("a fault (1)")
