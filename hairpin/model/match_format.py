"""A match as text, in the language that `hairpin.model.match_text` reads."""

from __future__ import annotations

import re

from hairpin.model.match import And, Match, Method, Not, Or
from hairpin.model.match_rules import subject_of
from hairpin.model.match_text import CONNECTIVES, NAME, OPERATORS, SIGNS

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,;?&^$*|\[\]{}<>!#-][A-Za-z0-9_./:@%+,;?&^$*|\[\]{}<>!#=~-]*")
"""Values that need no quotes."""


def format_match(match: Match) -> str:
    """Write a match; `parse_match` reads it again, as long as each `and` and `or` joins two or more.

    Raises:
        ValueError: an `and` or `or` joins nothing, for which the language has no word.
    """
    match = _unwrapped(match)
    match match:
        case Or(parts) if _is_method_list(match):
            return "method " + ",".join(part.name for part in parts if isinstance(part, Method))
        case And(parts) | Or(parts):
            return (" and " if isinstance(match, And) else " or ").join(_grouped(part, match) for part in parts)
        case Not(part):
            return f"not {_grouped(part, match)}"
        case Method(name):
            return f"method {name}"
        case _:
            return _format_condition(match)


def _unwrapped(match: Match) -> Match:
    """The match without an `and` or `or` that joins but one."""
    while isinstance(match, And | Or) and len(match.parts) < 2:  # noqa: PLR2004 - nothing to join
        [match] = match.parts
    return match


def _is_method_list(match: Match) -> bool:
    return isinstance(match, Or) and all(isinstance(part, Method) for part in match.parts)


def _grouped(part: Match, around: Match) -> str:
    """A part, in parentheses unless it binds closer than what is around it."""
    part = _unwrapped(part)
    loose = isinstance(part, And | Or) and not _is_method_list(part)
    closer = isinstance(part, And) and isinstance(around, Or)
    return f"({format_match(part)})" if loose and not closer else format_match(part)


def _format_condition(match: Match) -> str:
    found = subject_of(match)
    assert found is not None  # noqa: S101 - the other kinds are written above
    subject, name, value = found
    if not subject.name_field:
        sign = next(sign for sign, kind in SIGNS.items() if value is not None and kind is value.kind)
        return f"{subject.word} {sign}{_quoted_if_needed(value.value if value else '')}"
    name = name if NAME.fullmatch(name) and name not in CONNECTIVES else _quoted(name)
    if value is None:
        return f"{subject.word} {name}"
    operator = next(operator for operator, kind in OPERATORS.items() if kind is value.kind)
    return f"{subject.word} {name}{operator}{_quoted_if_needed(value.value)}"


def _quoted_if_needed(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and text not in CONNECTIVES and not text.endswith("/*")
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
