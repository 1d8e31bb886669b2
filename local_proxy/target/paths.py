"""Paths of mounted files, in variables' values: they are made to lead to the private copies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from local_proxy.target.volumes import is_below

_BEFORE = r"(?P<before>^|[=:,;\s\"'(]|file://)"
_AFTER = r"(?=$|[/:,;\s\"')])"


def rewritten(
    variables: Mapping[str, str], mounted: Iterable[str], root: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables with their paths under a root, and the names of those that were changed.

    A mounted path is one where a path can begin: at a value's start, after `=`, a separator or `file://`; and end: before `/`, a
    separator or the value's end. So `/etc/app` is found in `/etc/app/a.yaml`, `/usr/share:/etc/app` and `-Dconf=/etc/app/a`, and
    not in `/etc/apple`, `/srv/etc/app` or `http://host/etc/app`.

    Args:
        variables: the target's.
        mounted: paths in the container whose copies are there.
        root: the folder that stands for the container's root.
    """
    # Of two that both fit, the longer one.
    paths = sorted(set(mounted), key=lambda path: (-len(path), path))
    if not paths:
        return dict(variables), ()
    pattern = re.compile(f"{_BEFORE}(?P<path>{'|'.join(map(re.escape, paths))}){_AFTER}")

    def replaced(found: re.Match[str]) -> str:
        return f"{found['before']}{root}{found['path']}"

    made = {name: pattern.sub(replaced, value) for name, value in variables.items()}
    return made, tuple(sorted(name for name, value in made.items() if value != variables[name]))


def under(root: Path, path: str) -> Path:
    """Where the copy of a container's file is.

    Raises:
        ValueError: the path leads out of the root.
    """
    relative = path.lstrip("/")
    if not is_below(relative):
        raise ValueError(f"{path!r} is no path in a container")
    return root / relative
