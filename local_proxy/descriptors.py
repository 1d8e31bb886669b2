"""Which descriptors were meant for the command (a log's pipe, a job server, systemd's listeners), and how many we may have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_STANDARD = 2
_MOST = 1 << 16
"""Descriptors; more would be for connections that one laptop does not have."""
_FOLDERS = ("/proc/self/fd", "/dev/fd")
_LISTEN_PID = "LISTEN_PID"
_LISTEN_PID_OBJECT = "LISTEN_PIDFDID"


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


def gives_listeners(environ: Mapping[str, str]) -> bool:
    """Whether systemd, or who acts like it, gave us listeners: sd_listen_fds(3) then finds our process ID in a variable."""
    return environ.get(_LISTEN_PID) == str(os.getpid())


def listeners_passed_on(environ: Mapping[str, str], pid: int) -> dict[str, str]:
    """Our environment as it has to be for the command: listeners that were given to us are for it.

    Args:
        environ: with our process ID, if we were given any; another's is left as it is.
        pid: the command's.
    """
    if not gives_listeners(environ):
        return dict(environ)
    # The process object's number (systemd 258) is ours, and may be missing.
    return {name: value for name, value in environ.items() if name != _LISTEN_PID_OBJECT} | {_LISTEN_PID: str(pid)}


def _is_inheritable(number: int) -> bool:
    with contextlib.suppress(OSError):  # that of the folder's listing is closed by now
        return os.get_inheritable(number)
    return False
