"""Files that appear whole or not at all; those that hold secrets are their owner's alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_BEGINNING = 50


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
    replace_file(path, content, mode=0o600)


def replace_file(path: Path, content: bytes, *, mode: int) -> None:
    """Writes a file in a directory that there is. It appears whole, and with this mode, or not at all.

    Raises:
        OSError: the directory can't be written.
    """
    # mkstemp makes it 0600 from the start. A name may have 255 bytes; mkstemp adds some to its beginning.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_BEGINNING]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
