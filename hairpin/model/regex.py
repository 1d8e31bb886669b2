"""Regular expressions as trees (`regex_syntax` reads them), and what can be done with one.

Having the tree, we can confine an expression to a part of a header (`within`), and tell whether it matches without Python's
`re`, whose time may grow exponentially (`fullmatch`). Envoy compiles RE2 for Latin-1: an expression is about bytes, here
too; what is not ASCII stands for its UTF-8 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

BYTES = frozenset(range(256))
DOT = BYTES - {ord("\n")}
"""What `.` stands for."""
SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
"""Repetitions that have a sign of their own: the least and the most times."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One byte out of a set."""

    values: frozenset[int]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Any of them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`least` to `most` times; `most` None is without end."""

    part: Node
    least: int
    most: int | None


Node: TypeAlias = Chars | Sequence | Either | Repeat


def within(node: Node, allowed: frozenset[int]) -> Node:
    """The same expression, on strings of these bytes only."""
    match node:
        case Chars(values):
            return Chars(values & allowed)
        case Repeat(part, least, most):
            return Repeat(within(part, allowed), least, most)
        case _:
            return type(node)(tuple(within(part, allowed) for part in node.parts))


def is_nullable(node: Node) -> bool:
    """Whether it matches the empty string."""
    match node:
        case Chars():
            return False
        case Sequence(parts):
            return all(map(is_nullable, parts))
        case Either(parts):
            return any(map(is_nullable, parts))
        case Repeat(part, least, _):
            return least == 0 or is_nullable(part)


def fullmatch(node: Node, text: str) -> bool:
    """Whether the whole text matches; in time polynomial in its length."""
    data = text.encode()
    return len(data) in _ends(node, data, frozenset([0]))


def _ends(node: Node, data: bytes, starts: frozenset[int]) -> frozenset[int]:
    """Where the expression may end if it begins at one of `starts`."""
    match node:
        case Chars(values):
            return frozenset(at + 1 for at in starts if at < len(data) and data[at] in values)
        case Sequence(parts):
            for part in parts:
                starts = _ends(part, data, starts)
            return starts
        case Either(parts):
            return frozenset().union(*(_ends(part, data, starts) for part in parts))
        case Repeat(part, least, most):
            for _ in range(least):
                further = _ends(part, data, starts)
                if further == starts:
                    break
                starts = further
            reached = newest = starts
            left = -1 if most is None else most - least
            while newest and left:
                newest = _ends(part, data, newest) - reached
                reached |= newest
                left -= 1
            return reached


def render(node: Node) -> str:
    """The expression as RE2 for Latin-1 reads it, and Python's `re` for bytes just so; ASCII only."""
    match node:
        case Chars(values):
            return _chars(values)
        case Sequence(parts):
            return "".join(f"(?:{render(part)})" if isinstance(part, Either) else render(part) for part in parts)
        case Either(parts):
            return "|".join(map(render, parts))
        case Repeat(part, least, most):
            inner = render(part) if isinstance(part, Chars) else f"(?:{render(part)})"
            signs = (sign for sign, counts in SIGNS.items() if counts == (least, most))
            return inner + next(signs, f"{{{least},{'' if most is None else most}}}")


def literal(text: str) -> str:
    """An expression that matches just this text."""
    return "".join(map(_byte, text.encode()))


def _byte(value: int, special: str = r"\.+*?()|[]{}^$") -> str:
    char = chr(value)
    if not char.isascii() or not char.isprintable():
        return f"\\x{value:02x}"
    return f"\\{char}" if char in special else char


def _class_byte(value: int) -> str:
    return _byte(value, r"\[]^-&~|")  # Python warns of && and the like in classes


def _chars(values: frozenset[int]) -> str:
    if values == DOT:
        return "."
    if len(values) == 1:
        return _byte(min(values))
    negated = max(values, default=255) == 255  # noqa: PLR2004 - no single char, and none at all, are negations too
    listed = sorted(BYTES - values if negated else values)
    if not listed:
        return r"[\x00-\xff]"
    runs: list[list[int]] = []
    for value in listed:
        if runs and runs[-1][1] == value - 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    items = "".join(
        _class_byte(low) if low == high else f"{_class_byte(low)}{'-' * (high - low > 1)}{_class_byte(high)}"
        for low, high in runs
    )
    return f"[{'^' * negated}{items}]"


def steps(node: Node) -> int:
    """About how long a program RE2 makes of it, counts written out."""
    match node:
        case Chars(values):
            listed = sorted(values)
            return 1 + sum(b - a > 1 for a, b in pairwise(listed))
        case Repeat(part, least, most):
            return (steps(part) + 1) * max(1, least, most or 0) + 1
        case _:
            return sum(map(steps, node.parts)) + len(node.parts)
