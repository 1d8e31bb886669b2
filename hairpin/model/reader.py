"""Reading a document field by field: every error names the field by its path, and unknown fields are refused."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from hairpin.errors import InvalidFieldError

if TYPE_CHECKING:
    import re

_REQUIRED = object()


class Reader:
    """One mapping of a document."""

    def __init__(self, document: Any, where: str) -> None:
        self.where = where
        if document is None:
            raise InvalidFieldError(where or "the file", None, "is empty", "write `field: value` lines")
        if not isinstance(document, dict):
            raise InvalidFieldError(where or "file", document, "is not a mapping", "write `field: value` lines")
        self._document = document
        self._taken: set[str] = set()

    @property
    def names(self) -> set[str]:
        """The fields that are there."""
        return set(map(str, self._document))

    def path(self, field: str) -> str:
        """The field's dotted path from the top of the document."""
        return f"{self.where}.{field}" if self.where else field

    def take(self, field: str, default: Any = _REQUIRED) -> Any:
        """The field's value as it is."""
        self._taken.add(field)
        value = self._document.get(field)
        if value is not None:
            return value
        if default is _REQUIRED:
            close = difflib.get_close_matches(field, self.names - self._taken, n=1)
            remedy = f"did you mean it by {close[0]!r}?" if close else "add it"
            raise InvalidFieldError(self.path(field), None, "is missing", remedy)
        return default

    def text(self, field: str, default: Any = _REQUIRED, pattern: re.Pattern[str] | None = None) -> str:
        """A string, of this pattern."""
        value = self.take(field, default)
        if not isinstance(value, str):
            raise InvalidFieldError(self.path(field), value, "is not a string", "put it in quotes")
        if pattern and not pattern.fullmatch(value):
            raise InvalidFieldError(self.path(field), value, "is not a name", "use lower-case letters, digits and -")
        return value

    def texts(self, field: str, default: Any = _REQUIRED) -> list[str]:
        """A list of strings; numbers are taken as they are written."""
        return [str(item) for item in self.items(field, default) if not isinstance(item, dict | list)]

    def items(self, field: str, default: Any = _REQUIRED) -> list[Any]:
        """A list."""
        value = self.take(field, default)
        if not isinstance(value, list):
            raise InvalidFieldError(self.path(field), value, "is not a list", "write [one, another]")
        return value

    def mapping(self, field: str) -> dict[Any, Any]:
        """A mapping."""
        value = self.take(field)
        if not isinstance(value, dict):
            raise InvalidFieldError(self.path(field), value, "is not a mapping", "write `name: …` lines below it")
        return {key: {} if item is None else item for key, item in value.items()}

    def section(self, field: str, default: dict[str, Any]) -> Reader:
        """A mapping, to be read field by field."""
        return Reader(self.take(field, default), self.path(field))

    def port(self, field: str, default: Any = _REQUIRED) -> int:
        """A port's number."""
        value = self.take(field, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:  # noqa: PLR2004 # a port
            raise InvalidFieldError(self.path(field), value, "is not a port", "use a number from 1 to 65535")
        return value

    def flag(self, field: str, *, default: bool) -> bool:
        """True or false."""
        value = self.take(field, default)
        if not isinstance(value, bool):
            raise InvalidFieldError(self.path(field), value, "is neither true nor false", "write true or false")
        return value

    def finish(self) -> None:
        """Nothing else may be there."""
        for name in self._document:
            if name not in self._taken:
                close = difflib.get_close_matches(str(name), self._taken, n=1)
                known = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(self._taken))}"
                raise InvalidFieldError(self.path(str(name)), self._document[name], "is not a known field", known)
