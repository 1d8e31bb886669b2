"""The processes that a command has become: its descendants, and those that left it for another parent.

A reloader's worker, a server's child, a daemon that forked twice: any of them may be the one that listens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

import psutil

_LINUX: bool = sys.platform == "linux"
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> bool:
    """Have this process become the parent of its descendants whose own parent ends, where the system can (Linux).

    So a daemon of the command's stays in sight, whatever session or process group it moved to.
    """
    if not _LINUX:
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


class ProcessTree:
    """The processes of one command.

    A process belongs when its parent does, when its process group or session is led by one that belonged, or when it
    bears the command's mark and is our own child (it was adopted) or in the command's process group. Once in, it stays
    in for as long as it lives.

    Args:
        root: the command's process ID.
        mark: an environment variable and its value that were given to the command and to nothing else.
    """

    def __init__(self, root: int, mark: tuple[str, str] | None = None) -> None:
        self._root = root
        self._mark = mark
        self._own = os.getpid()
        self._members: dict[int, float] = {}
        self._leaders = {root}
        self._not_ours: dict[int, float] = {}
        try:
            self._group = os.getpgid(root)
        except OSError:
            self._group = -1

    def processes(self) -> list[psutil.Process]:
        """Those that live now, the command's own first."""
        parents = _parents()
        groups = {pid: _groups(pid) for pid in parents}
        members = {pid for pid, started in self._members.items() if pid in parents and _started(pid) == started}
        members |= {self._root} & parents.keys()
        members |= {
            pid for pid, parent in parents.items() if pid not in members and self._belongs(pid, parent, groups[pid])
        }
        members = _with_descendants(members, parents) - {self._own}
        # The kernel gives nobody a number by which a group or session goes, and may give away any other once it is free.
        self._leaders = members | (self._leaders & {number for pair in groups.values() for number in pair})
        self._not_ours = {pid: started for pid, started in self._not_ours.items() if pid in parents}
        self._members = {pid: started for pid in members if (started := _started(pid)) is not None}
        found = []
        for pid in sorted(self._members, key=lambda pid: (pid != self._root, self._members[pid])):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
                elif pid != self._root and parents[pid] == self._own:
                    _reap(pid)
        return found

    def _belongs(self, pid: int, parent: int, groups: tuple[int, ...]) -> bool:
        if pid == self._own or not groups:
            return False
        if self._leaders.intersection(groups):
            return True
        return (parent == self._own or groups[0] == self._group) and self._marked(pid)

    def _marked(self, pid: int) -> bool:
        # Our Envoy is our child too, and the rest of a pipeline that we stand in shares our process group.
        started = _started(pid)
        if self._mark is None or started is None or self._not_ours.get(pid) == started:
            return False
        name, value = self._mark
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).environ().get(name) == value:
                return True
        self._not_ours[pid] = started
        return False


def _groups(pid: int) -> tuple[int, ...]:
    """The numbers of a process's group and session; none if it has ended."""
    try:
        return os.getpgid(pid), os.getsid(pid)
    except OSError:
        return ()


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _parents() -> dict[int, int]:
    """Every process's parent."""
    if not _LINUX:
        return {process.pid: process.info["ppid"] or 0 for process in psutil.process_iter(["ppid"])}
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name, in parentheses, may hold anything: what follows the last one is state and parent.
                table[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return table


def _started(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _with_descendants(pids: set[int], parents: dict[int, int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found
