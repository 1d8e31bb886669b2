"""Which descriptors were meant for the command (a log's pipe, a job server), and how many we may have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_STANDARD = 2
_MOST = 1 << 16
"""Descriptors; more would be for connections that one laptop does not have."""
_FOLDERS = ("/proc/self/fd", "/dev/fd")


def inherited_descriptors() -> tuple[int, ...]:
    """Those beyond the standard ones that would stay open in a program that we became.

    What Python opens is not inheritable (PEP 446), so all that is has come from outside.
    """
    found = []
    for folder in map(Path, _FOLDERS):
        with contextlib.suppress(OSError):
            found = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
            break
    return tuple(sorted(number for number in found if number > _STANDARD and _is_inheritable(number)))


@contextlib.contextmanager
def more_descriptors() -> Iterator[None]:
    """As many as this process may have, during the block; processes that are started in it would have as many too."""
    import resource  # noqa: PLC0415 # only where there are such limits

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    raised = soft != resource.RLIM_INFINITY and soft < most
    if raised:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        if raised:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_inheritable(number: int) -> bool:
    with contextlib.suppress(OSError):  # that of the folder's listing is closed by now
        return os.get_inheritable(number)
    return False
