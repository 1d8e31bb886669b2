"""YAML files that users write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hairpin.errors import InvalidFieldError, NotFoundError


def load_yaml(path: Path) -> Any:
    """The file's one document.

    Raises:
        NotFoundError: it can't be read.
        InvalidFieldError: it is no YAML; the message has line and column.
    """
    import yaml  # noqa: PLC0415 # takes a while to import

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidFieldError(str(path), error.reason, "is not UTF-8", "save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise InvalidFieldError(where, error.problem, "is no YAML", "mend this line") from error
