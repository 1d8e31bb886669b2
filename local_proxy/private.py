"""The private folder of one `hairpin run`: keys, and the target's files. In memory where there is such a place.

It is 0700, of our user, and gone at the end: by `private_folder` itself, by guard.py after a `kill -9`, and by the next
`hairpin run` of the same user if not even that one lived (a power cut, `kill -9` of both). Whether a folder's owner lives is told
by a lock that the kernel drops with the process; no process ID is asked, which another process may have by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hairpin.unix_sockets import temporary_directory

PREFIX = "hairpin-run-"
LOCK = ".lock"
UNLOCKED_SECONDS = 60.0
"""How old a folder without a lock must be before it is taken for a dead one's: it may be being made."""
_MEMORY = Path("/dev/shm")  # noqa: S108 # only a folder that mkdtemp makes in it
_ROOM = 32
"""Characters of a socket's path below the folder."""
_MOST_LENGTH = 40
"""Of the place: sockets lie in the folder, and the kernel takes 107 bytes of a socket's path."""


@contextlib.contextmanager
def private_folder(environ: Mapping[str, str] | None = None) -> Iterator[Path]:
    """A new folder until the context ends. Those that dead processes left are removed first.

    Args:
        environ: for XDG_RUNTIME_DIR and TMPDIR.

    Raises:
        OSError: no place can be written.
    """
    environ = os.environ if environ is None else environ
    found = places(environ)
    sweep([*found, Path(tempfile.gettempdir())])
    # mkdtemp makes it 0700.
    folder = (
        Path(tempfile.mkdtemp(prefix=PREFIX, dir=found[0])) if found else temporary_directory(PREFIX, _ROOM, environ)
    )
    # Locked before it has its name: whoever sweeps meanwhile would find it free.
    unnamed = folder / f"{LOCK}.new"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(folder / LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def places(environ: Mapping[str, str]) -> list[Path]:
    """Where in memory such folders may be made, the best first: of this user alone, of everyone's."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    candidates = [*([Path(runtime)] if runtime.startswith("/") else []), _MEMORY]
    return [place for place in candidates if len(str(place)) <= _MOST_LENGTH and _in_memory(place)]


def sweep(where: Iterable[Path], *, now: float | None = None) -> list[Path]:
    """Remove the folders of our user whose process is dead: those.

    Args:
        where: the places.
        now: seconds since the epoch.
    """
    now = time.time() if now is None else now
    removed = []
    for place in where:
        with contextlib.suppress(OSError):
            removed += [entry for entry in sorted(place.glob(f"{PREFIX}*")) if _is_left(entry, now) and _remove(entry)]
    return removed


def _is_left(folder: Path, now: float) -> bool:
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return now - found.st_mtime > UNLOCKED_SECONDS
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its owner lives
        return False
    finally:
        os.close(lock)
    return True


def _remove(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _in_memory(place: Path) -> bool:
    """Whether it is a tmpfs that we may write, as far as this system tells."""
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return False
    with contextlib.suppress(OSError):
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        kinds = {fields[1]: fields[2] for fields in (line.split(" ") for line in mounts)}
        above = [str(place), *map(str, place.parents)]
        return next((kinds[path] for path in above if path in kinds), "") in ("tmpfs", "ramfs")
    return False
