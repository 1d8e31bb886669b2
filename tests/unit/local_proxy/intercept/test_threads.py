"""Whose descriptors are taken, where an ID that was a thread's is another process's by now."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_proxy.intercept import kernel
from local_proxy.intercept.launch import architecture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has pidfd_getfd")


@pytest.fixture
def processes():
    """Two that wait, each with a file of its own as its standard output."""
    started = [
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=os.memfd_create(name)) for name in ("before", "now")
    ]
    yield started
    for process in started:
        process.communicate()


@pytest.fixture
def threads():
    made = kernel.Threads(architecture())
    yield made
    made.close()


def opened():
    """How many descriptors we have."""
    return len([*Path("/proc/self/fd").iterdir()])


def standard_output(threads, tid):
    descriptor = threads.descriptor(tid, 1)
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    finally:
        os.close(descriptor)


def test_before_linux_6_9_a_process_that_outlives_its_thread_is_not_taken_for_who_has_its_id(
    processes, threads, monkeypatch
):
    before, now = processes
    monkeypatch.setattr(kernel, "_PIDFD_THREAD", 1 << 30)  # no flag that a kernel knows
    with monkeypatch.context() as earlier:
        earlier.setattr(kernel, "_process", lambda _: before.pid)  # when the ID was a thread of the other
        threads.descriptor(now.pid, 1)
    assert "now" in standard_output(threads, now.pid)
    assert threads.process(now.pid) == now.pid
    assert "before" in standard_output(threads, before.pid)


def test_descriptors_of_many_threads_are_not_kept(threads, processes, monkeypatch):
    monkeypatch.setattr(kernel, "_MOST_THREADS", 1)
    before = opened()
    for process in processes * 3:
        standard_output(threads, process.pid)
    assert opened() == before + 1
