"""A place in a text that a user typed, and errors that point at it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from hairpin.errors import InvalidFieldError

T = TypeVar("T")
_AROUND = 48
"""How much of a long text an error shows on either side."""


class Scanner:
    """Reads a text from left to right.

    Args:
        text: what was typed.
        field: where, for errors.
    """

    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.field = field
        self.at = 0

    def peek(self) -> str:
        """The next character; empty at the end."""
        return self.text[self.at : self.at + 1]

    def take(self, char: str) -> bool:
        """Pass over this character, if it is the next."""
        found = self.peek() == char
        self.at += found
        return found

    def skip_blanks(self) -> None:
        """Pass over white space."""
        while self.peek().isspace():
            self.at += 1

    def matched(self, pattern: re.Pattern[str]) -> str:
        """Pass over what matches here; empty if nothing does."""
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""

    def quoted(self) -> str:
        """Pass over a string in the quotes that stand here; the quote itself is written twice in it."""
        quote, start = self.peek(), self.at
        while True:
            end = self.text.find(quote, self.at + 1)
            if end < 0:
                self.fail(start, start + 1, "is not closed", f"add another {quote}; within them write {quote} twice")
            self.at = end + 1
            if self.peek() != quote:
                return self.text[start + 1 : end].replace(quote * 2, quote)

    def checked(self, start: int, read: Callable[[], T], end: int | None = None) -> T:
        """What `read` returns; its error points at the text from `start` to here, or to `end`."""
        try:
            return read()
        except InvalidFieldError as error:
            self.fail(start, self.at if end is None else end, error.problem, error.remedy)

    def fail(self, start: int, end: int, problem: str, remedy: str) -> NoReturn:
        """Say what is wrong with a part of the text, and show where it stands.

        Raises:
            InvalidFieldError: always.
        """
        found = self.text[start:end] if start < len(self.text) else self.text
        value = found if len(found) <= 2 * _AROUND else found[: 2 * _AROUND] + "…"
        raise InvalidFieldError(self.field, value, problem, remedy + self._arrow(start, end))

    def _arrow(self, start: int, end: int) -> str:
        if not self.text.strip():
            return ""
        first, last = max(0, start - _AROUND), max(end, start + 1) + _AROUND
        before = "…" * (first > 0)
        line = "".join(char if char.isprintable() else " " for char in self.text[first:last])
        length = max(1, min(end, last) - start)
        after = "…" * (last < len(self.text))
        return f"\n  {before}{line}{after}\n  {' ' * (len(before) + start - first)}{'^' * length}"
