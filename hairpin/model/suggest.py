"""What a mistyped word was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LIKENESS = 0.6
"""difflib's own default: `adn` finds `and`, `x` finds nothing."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`, whatever their case; None if none is like it."""
    words = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(word.lower(), words, n=1, cutoff=_LIKENESS)
    return words[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """An insertion for an error's text, ` (did you mean 'checkout'?)`, or nothing."""
    found = closest(word, known)
    return f" (did you mean {found!r}?)" if found else ""
