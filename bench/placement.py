"""Who runs on which of this machine's cores: in a cluster, not everyone shares the target's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from hairpin.mesh.supervisor import MeshSupervisor

Cores = frozenset[int]


def halves() -> tuple[Cores, Cores] | None:
    """This process's cores in two; None where there is one, or no way to choose."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    return (frozenset(cores[:half]), frozenset(cores[half:])) if half else None


@contextlib.contextmanager
def apart(supervisor: MeshSupervisor, names: Iterable[str], cores: tuple[Cores, Cores] | None) -> Iterator[None]:
    """During the block, this process and some services have cores of their own, and whatever else descends from us the others.

    Programs started in the block are where the one that starts them is.

    Args:
        supervisor: the mesh.
        names: the services that stay beside this process, each with its sidecar.
        cores: theirs, and the others'; None: everyone stays where they are.
    """
    if cores is None:
        yield
        return
    ours, others = cores
    near = {os.getpid()} | {pid for name in names for pid in _service(supervisor, name)}
    before = os.sched_getaffinity(0)
    everyone = [os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))]
    for pid in everyone:
        _pin(pid, ours if pid in near else others)
    try:
        yield
    finally:
        for pid in everyone:
            _pin(pid, before)


def cpu_seconds(pid: int | None) -> float:
    """What a process has used; 0 if there is none (any more)."""
    if pid is None:
        return 0.0
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return 0.0


def _service(supervisor: MeshSupervisor, name: str) -> set[int]:
    found: set[int] = set()
    for pid in (supervisor.proxies[name].pid, supervisor.services[name].pid):
        if pid is not None:
            found |= {pid, *(process.pid for process in psutil.Process(pid).children(recursive=True))}
    return found


def _pin(pid: int, cores: Iterable[int]) -> None:
    # Each thread has its own; the process's is its first one's.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
