"""A program that never outlives the process that started it, however that one ends.

`leashed` turns a command into one that ties itself to its parent and then becomes the command: same process id, same exit
code, signals go straight to it. It is run as a script by its path, in an isolated interpreter, so it must import nothing of
hairpin. There are two leashes:

`signal` (Linux): the kernel sends SIGKILL when the parent *thread* ends (PR_SET_PDEATHSIG), so it fits only programs started
    from the main thread. No process beside the program. Lost if the program is set-uid or has file capabilities.
`pipe` (anywhere): stdin is a pipe whose other end only the parent holds. A small watcher, forked before the program takes
    over, waits for its end and kills the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def suitable_leash() -> str:
    """The kind of leash that holds here: depends on the platform and on the thread that starts the program."""
    main_thread = threading.current_thread() is threading.main_thread()
    return "signal" if sys.platform == "linux" and main_thread else "pipe"


def leashed(command: Sequence[str], kind: str | None = None) -> list[str]:
    """The command on a leash to this process.

    Args:
        command: the program's path and its arguments.
        kind: `signal` or `pipe`; by default what suits. With `pipe` the caller starts it with a pipe as stdin, writes
            nothing, and closes it once the program has ended; the program itself gets an empty stdin.
    """
    kind = kind or suitable_leash()
    return [sys.executable, "-I", "-S", __file__, kind, str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    """Ties this process to its parent and becomes the command: never returns."""
    kind, parent, *command = arguments
    if kind == "signal":
        _die_with(int(parent))
    else:
        _fork_watcher()
    # The interpreter ignores these; a program expects the default.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as e:
        sys.stderr.write(f"{command[0]}: {e.strerror}\n")
        sys.exit(127)


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    # The parent may have ended before: then nothing would ever come.
    if os.getppid() != parent:
        sys.exit("the process that wanted this program is gone")


def _fork_watcher() -> None:
    program = os.getpid()
    null = os.open(os.devnull, os.O_RDWR)
    if os.fork():
        os.dup2(null, 0)
        os.close(null)
        return
    try:
        # Out of reach of signals to the program's group and of a terminal's.
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # Else whoever reads the program's output never sees its end.
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.closerange(3, 256)
        while os.read(0, 4096):
            pass
        # No longer its child: the program ended before, and its number may be another's by now.
        if os.getppid() == program:
            os.kill(program, signal.SIGKILL)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
