"""Cleans up when hairpin itself is killed: a process that waits for the end of a pipe.

    python guard.py end|keep PID STARTED [FOLDER] < pipe

It stands in a session of its own, so that no Ctrl-C reaches it, and does nothing until the pipe closes. If hairpin wrote
`done` before, it leaves. If not, hairpin was killed: the command and its descendants get SIGTERM, and after a while SIGKILL,
unless the user keeps them (`--if-killed`); FOLDER, where keys lie, is removed. PR_SET_PDEATHSIG would not do: it reaches
the command alone, not the server that the command started, which would keep the port; and it is Linux's alone.

It runs as a script, so as to start without the package, and imports psutil only when there is something to end.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from enum import StrEnum

GRACE_SECONDS = 2.0
"""How long the command has to end by itself."""


class IfKilled(StrEnum):
    """What becomes of the command if hairpin is killed."""

    END = "end"
    KEEP = "keep"
    """It goes on; its calls that were ours to answer fail."""


def main() -> None:
    """Wait for the end of standard input, and clean up unless told that all is done."""
    if_killed, pid, started, folders = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    if sys.stdin.buffer.read().endswith(b"done\n"):
        return
    if if_killed == IfKilled.END:
        end(pid, started)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def end(pid: int, started: float) -> None:
    """End a process and its descendants, if it is still the one that started then (seconds since the epoch)."""
    import psutil  # noqa: PLC0415

    try:
        root = psutil.Process(pid)
        if root.create_time() != started:
            return
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.resume()  # a stopped process would not hear of it
    _, alive = psutil.wait_procs(processes, GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    main()
