"""Programs that tests build once from pinned sources and keep outside the clone, under a hash of what they came from."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class MissingError(Exception):
    """The machine lacks something; the message says what, as the reason of a skip."""


def cache(name: str) -> Path:
    """The folder for one kind of programs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hairpin" / name


def require(program: str, package: str) -> Path:
    """Where a program is that the system brings.

    Raises:
        MissingError: it is not installed.
    """
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not found:
        raise MissingError(f"{program} is missing; install Debian's package {package}")
    return Path(found)


def built(folder: Path, name: str, build: Callable[[Path], None]) -> Path:
    """The folder, once `build` has filled it: under a lock, so that two runs at once build it once."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f"{name}.lock"):
        if not folder.exists():
            sys.stderr.write(f"building {name}: minutes the first time, once for each version\n")
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as work:
                build(Path(work))
                Path(work).chmod(0o755)  # others than we run some of it
                Path(work).rename(folder)
                Path(work).mkdir()  # for the context manager to remove
    return folder


def fingerprint(sources: Sequence[Path], root: Path, *more: str) -> str:
    """A hash of files, their places below `root` and whatever else decides what is built."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.relative_to(root)}\0".encode() + source.read_bytes())
    for text in more:
        digest.update(f"\0{text}".encode())
    return digest.hexdigest()[:12]


def run(command: Sequence[str | Path], *, cwd: Path, **environment: str) -> str:
    """A build's command: what it printed.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} in {cwd}:\n{done.stderr[-4000:]}")
    return done.stdout


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
