"""Files that hold secrets."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def private_directory(path: Path) -> Path:
    """The directory, made with its parents if need be; only the owner may enter it if it is new."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read. It appears whole or not at all, in place of a former one.

    Raises:
        OSError: the directory can't be written.
    """
    private_directory(path.parent)
    # mkstemp makes it 0600 from the start.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
