"""Agents' reports: which stream speaks for a replica."""

from __future__ import annotations

from xds_server.model.cluster import Key, PodFacts
from xds_server.sources.kubernetes.agents import AgentReports, is_agent

POD, OTHER = Key("shop", "hairpin-agent-0"), Key("shop", "hairpin-agent-1")


class Count:
    def __init__(self) -> None:
        self.changes = 0

    def __call__(self) -> None:
        self.changes += 1


def test_a_replica_that_never_reported_is_not_in_there():
    reports = AgentReports(Count())
    reports.open(POD)
    assert reports.tunnels == {}


def test_changes_alone_are_told():
    changed = Count()
    reports = AgentReports(changed)
    stream = reports.open(POD)
    reports.report(POD, stream, frozenset({"a.shop"}))
    reports.report(POD, stream, frozenset({"a.shop"}))
    assert (reports.tunnels, changed.changes) == ({POD: frozenset({"a.shop"})}, 1)


def test_a_stream_that_breaks_off_leaves_an_empty_replica():
    changed = Count()
    reports = AgentReports(changed)
    stream = reports.open(POD)
    reports.report(POD, stream, frozenset({"a.shop"}))
    reports.close(POD, stream)
    assert (reports.tunnels, changed.changes) == ({POD: frozenset()}, 2)


def test_a_newer_stream_is_not_ended_by_the_older_ones_end():
    reports = AgentReports(Count())
    old = reports.open(POD)
    reports.report(POD, old, frozenset({"a.shop"}))
    new = reports.open(POD)
    reports.report(POD, new, frozenset({"b.shop"}))
    reports.report(POD, old, frozenset({"a.shop"}))
    reports.close(POD, old)
    assert reports.tunnels == {POD: frozenset({"b.shop"})}


def test_replicas_that_are_no_more_are_forgotten():
    reports = AgentReports(Count())
    for pod in (POD, OTHER):
        stream = reports.open(pod)
        reports.report(pod, stream, frozenset())
        reports.close(pod, stream)
    reports.keep(lambda pod: pod == POD)
    assert reports.tunnels == {POD: frozenset()}
    reports.clear()
    assert reports.tunnels == {}


def test_who_is_an_agent():
    labels = {"app.kubernetes.io/name": "hairpin-agent", "more": "labels"}
    pod = PodFacts(key=POD, labels=labels, service_account="hairpin-agent")
    assert is_agent(pod, "hairpin-agent")
    assert not is_agent(pod, "default")
    assert not is_agent(None, "hairpin-agent")
    assert not is_agent(PodFacts(key=POD, labels={}, service_account="hairpin-agent"), "hairpin-agent")
    ending = PodFacts(key=POD, labels=labels, service_account="hairpin-agent", terminating=True)
    assert not is_agent(ending, "hairpin-agent")


def test_a_replicas_version_is_what_its_last_stream_said_until_the_pod_is_gone():
    changed = Count()
    reports = AgentReports(changed)
    reports.close(POD, reports.open(POD, "0.1.0"))
    assert reports.versions == {POD: "0.1.0"}
    reports.report(POD, reports.open(POD, "0.2.0"), frozenset())
    assert reports.versions == {POD: "0.2.0"}
    reports.close(POD, reports._streams[POD])
    reports.keep(lambda _: False)
    assert reports.versions == {}
