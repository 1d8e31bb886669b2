"""What is mounted where, so that a command finds files at paths which this machine may not have; and what can't be.

Nothing is touched here; this machine is only looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/")
VITAL = (
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys",
    "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/local/bin", "/usr/sbin", "/usr/share",  # noqa: S108 - to leave it alone
    "/var", "/var/lib", "/var/run", "/var/tmp",  # noqa: S108
)  # fmt: skip
"""What no program here can do without: never hidden."""
KERNEL = (Path("/dev"), Path("/proc"), Path("/sys"))
"""Where nothing is mounted at all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be mounted."""

    covered: tuple[str, ...] = ()
    """Folders that lack a mount point, deeper ones first."""
    points: tuple[tuple[str, bool], ...] = ()
    """Mount points that are missing, and whether each is a folder."""
    copies: tuple[tuple[str, str], ...] = ()
    """What is bound where."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Paths that can't be mounted, as they were asked for, and why."""


Mounter = Callable[[Path, Plan], Awaitable[None]]
"""Mounts what a plan says for the command alone, given an empty folder. May raise CannotMountError."""


def plan(wanted: Mapping[str, Path], needed: Iterable[Path], *, user: int) -> Plan:
    """Where each copy is mounted.

    Args:
        wanted: copies, files or folders, by the path at which the command is to find them.
        needed: what may not be hidden: the working folder, the home, the program, our own folder.
        user: whose command it is.
    """
    covered: set[Path] = set()
    points, copies, refused = [], [], {}
    kept = [path.resolve() for path in needed]
    for path, copy in _outermost(wanted):
        place = Path(path).resolve()  # /var/run is a link to /run
        try:
            is_folder = _checked(place, copy, kept)
            if (parent := _lacking(place)) is not None:
                _check_covering(parent, user)
                covered.add(parent)
                points.append((str(place), is_folder))
        except _RefusedError as error:
            refused[path] = str(error)
            continue
        copies.append((str(copy), str(place)))
    deeper_first = sorted(covered, key=lambda folder: (-len(folder.parts), folder))
    return Plan(tuple(map(str, deeper_first)), tuple(points), tuple(copies), refused)


class _RefusedError(Exception):
    """Why a path can't be mounted."""


def _outermost(wanted: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """Copies that are in another's folder come with it."""
    paths = {path: Path(path) for path in wanted}
    return [
        (path, wanted[path])
        for path, pure in sorted(paths.items())
        if not any(other in pure.parents for other in paths.values())
    ]


def _checked(place: Path, copy: Path, needed: Iterable[Path]) -> bool:
    """Whether it is to be a folder."""
    if str(place) in VITAL:
        raise _RefusedError("it would hide what programs need on this machine")
    if any(place == kernel or kernel in place.parents for kernel in KERNEL):
        raise _RefusedError("it is the kernel's on this machine")
    for path in needed:
        if place == path or place in path.parents:
            raise _RefusedError(f"it would hide {path}, which the command needs")
    is_folder = copy.is_dir()
    try:
        there = place.stat()
    except OSError:
        return is_folder
    if stat.S_ISDIR(there.st_mode) != is_folder:
        kinds = ("a file", "a folder") if is_folder else ("a folder", "a file")
        raise _RefusedError(f"it is {kinds[0]} on this machine, and {kinds[1]} in the pod")
    return is_folder


def _lacking(place: Path) -> Path | None:
    """The nearest folder that exists of a place which doesn't; None if it does."""
    if os.path.lexists(place):
        return None
    return next((parent for parent in place.parents if os.path.lexists(parent)), ROOT)


def _check_covering(parent: Path, user: int) -> None:
    try:
        mode = parent.stat().st_mode
    except OSError as error:
        raise _RefusedError(f"{parent} can't be looked at: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise _RefusedError(f"{parent} is no folder on this machine")
    if any(parent == kernel or kernel in parent.parents for kernel in KERNEL):
        raise _RefusedError(f"{parent} is the kernel's on this machine")
    if not os.access(parent, os.R_OK | os.X_OK):
        raise _RefusedError(f"you may not list {parent}, in which it is missing")
    # New files there have to reach the real folder. Root may write everywhere: there it is told in the documentation.
    if mode & stat.S_ISVTX or (user != 0 and os.access(parent, os.W_OK)):
        raise _RefusedError(
            f"it is missing in {parent}, which programs write to: a mount point there would be seen by all"
        )
