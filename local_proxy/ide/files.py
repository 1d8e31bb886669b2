"""The IDEs' files: read as they are, written whole or not at all, and only if something changed."""

from __future__ import annotations

import os
from pathlib import Path

from hairpin.errors import HairpinError
from hairpin.files import replace_file


def read_text(path: Path) -> str | None:
    """A file's text with its own line ends and byte order mark; None if there is no such file.

    Raises:
        HairpinError: it can't be read, or is no UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HairpinError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HairpinError(f"{path}: is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def write_text(path: Path, text: str) -> bool:
    """Write a file, in place of a former one, whose mode it keeps; a link stays one. True if it changed.

    Raises:
        HairpinError: it can't be written.
    """
    if read_text(path) == text:
        return False
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        replace_file(path, text.encode(), mode=mode)
    except OSError as error:
        raise HairpinError(f"{path}: can't be written: {error.strerror}") from error
    return True


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
