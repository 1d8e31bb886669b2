"""Folders of runs: removed with the run, and by the next one where a run was killed."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOCK = ".alive"


@contextlib.contextmanager
def run_folder(prefix: str) -> Iterator[Path]:
    """A new folder that others may enter; those that dead runs left under the same prefix are removed first.

    A run holds a lock in its folder, which the kernel takes back from a process that is killed.
    """
    for found in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_if_dead(found)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    unlocked = folder / f"{_LOCK}.new"
    with unlocked.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unlocked.rename(folder / _LOCK)  # so that nobody finds it unlocked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_dead(folder: Path) -> None:
    with contextlib.suppress(OSError):  # no lock yet: it is just being made; or no more: another run removes it
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
