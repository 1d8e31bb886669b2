"""The descriptors that whoever started us meant for the command: a log's pipe, a process substitution, a job server."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_STANDARD = 2
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


def _is_inheritable(number: int) -> bool:
    with contextlib.suppress(OSError):  # that of the folder's listing is closed by now
        return os.get_inheritable(number)
    return False
