"""Which cores the bench's programs get."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

import pytest

from bench.placement import apart, cpu_seconds, halves

pytestmark = pytest.mark.skipif(halves() is None, reason="one core, or none to choose")


@pytest.fixture
def processes():
    """A service's sidecar and application, and someone else's program."""
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_service_stays_beside_the_load_and_everyone_else_is_elsewhere(processes):
    cores = halves()
    assert cores is not None
    ours, others = cores
    assert not ours & others
    before = os.sched_getaffinity(0)
    sidecar, application, stranger = processes
    supervisor = SimpleNamespace(proxies={"target": sidecar}, services={"target": application})
    with apart(supervisor, ["target"], cores):
        assert os.sched_getaffinity(0) == ours
        assert [os.sched_getaffinity(process.pid) for process in processes] == [ours, ours, others]
    everyone = [os.getpid(), *(process.pid for process in processes)]
    assert [os.sched_getaffinity(pid) for pid in everyone] == [before] * 4
    with apart(supervisor, ["target"], None):
        assert os.sched_getaffinity(stranger.pid) == before


def test_who_is_gone_has_used_nothing(processes):
    assert cpu_seconds(os.getpid()) > 0
    assert cpu_seconds(None) == 0
    processes[0].kill()
    processes[0].wait()
    assert cpu_seconds(processes[0].pid) == 0
