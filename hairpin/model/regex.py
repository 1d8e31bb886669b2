r"""The part of RE2's syntax that a match may use, as a tree.

Envoy refuses a whole resource for one regular expression that RE2 doesn't take, so a match is read by us first. Having
the tree, we can also confine an expression to a part of a header (`within`), and tell whether it matches without Python's
`re`, whose time may grow exponentially (`fullmatch`). Envoy compiles RE2 for Latin-1: an expression is about bytes, here
too; what is not ASCII stands for its UTF-8 bytes.

Left out, with a message: what RE2 itself does not have (look-around, back-references, possessive quantifiers), and what
nobody needs where the whole value must match (`\b`, anchors inside, flags other than a leading `(?i)`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from hairpin.model.shape import UnfitError

LONGEST = 256
"""Characters of an expression."""
MOST_REPEATS = 1000
"""RE2's own bound, of nested repetitions taken together (re2/parse.cc, kMaxRepeat)."""
MOST_STEPS = 10_000
"""Of the program that RE2 makes of it, roughly. Istio's proxies refuse more than 32,768 (re2.max_program_size.error_level)."""
_DEEPEST = 20
_BYTES = frozenset(range(256))
_DIGITS = frozenset(b"0123456789")
_WORD = _DIGITS | frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACE = frozenset(b"\t\n\f\r ")  # RE2's \s: without \v, unlike Python's
_CLASSES = {"d": _DIGITS, "D": _BYTES - _DIGITS, "w": _WORD, "W": _BYTES - _WORD, "s": _SPACE, "S": _BYTES - _SPACE}
_DOT = _BYTES - {ord("\n")}
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,2})\})")
_COUNT = re.compile(r"\{(\d{1,4})(?:(,)(\d{1,4})?)?\}")
_SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_GROUP = re.compile(r"\((?:\?(?::|P<[A-Za-z_]\w*>)|(?!\?))")


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


@lru_cache(maxsize=1024)
def parse(pattern: str) -> Node:
    """Read an expression.

    Raises:
        UnfitError: it is not in the language; says where and what would be right.
    """
    if len(pattern) > LONGEST:
        raise UnfitError(f"is {len(pattern)} characters long", f"use {LONGEST} at most")
    node = _Parser(pattern).parse()
    if _counted(node) > MOST_REPEATS:
        raise UnfitError("repeats too often", f"let nested counts together stay within {MOST_REPEATS}")
    if steps(node) > MOST_STEPS:
        raise UnfitError("is too large once its counts are written out", "use smaller counts, or * and +")
    return node


def check(pattern: str) -> None:
    """Raise UnfitError unless it can be used."""
    parse(pattern)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.depth = 0
        self.fold = text.startswith("(?i)")
        if self.fold:
            self.pos = len("(?i)")

    def parse(self) -> Node:
        node = self.either()
        if self.pos < len(self.text):
            raise self.error("has a ) without its (", r"write \) for the character itself")
        return node

    def either(self) -> Node:
        parts = [self.sequence()]
        while self.take("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def sequence(self) -> Node:
        top = self.depth == 0
        if top:
            self.take("^")  # the whole value must match anyway
        parts: list[Node] = []
        while (char := self.peek()) not in ("", "|", ")"):
            if char == "$" and top and self.text[self.pos + 1 : self.pos + 2] in ("", "|"):
                self.pos += 1
                break
            parts.append(self.quantified(self.atom(char)))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def atom(self, char: str) -> Node:
        match char:
            case "(":
                return self.group()
            case "[":
                return Chars(self.char_class())
            case "\\":
                return Chars(self.folded(self.escape()))
            case ".":
                self.pos += 1
                return Chars(_DOT)
            case "*" | "+" | "?":
                raise self.error(
                    f"has a {char} with nothing to repeat before it", f"write \\{char} for the character itself"
                )
            case "{":
                raise self.error("has a { that counts nothing", r"write \{ for the character itself")
            case "^" | "$":
                remedy = f"the whole value must match anyway: drop it, or write \\{char} for the character itself"
                raise self.error(f"has a {char} inside", remedy)
        self.pos += 1
        code = char.encode(errors="replace")
        parts = tuple(Chars(self.folded(frozenset([byte]))) for byte in code)
        return parts[0] if len(parts) == 1 else Sequence(parts)

    def group(self) -> Node:
        start = _GROUP.match(self.text, self.pos)
        if start is None:
            raise self.error(
                "has a group that RE2 or we don't have", "use ( ), (?: ) and, at the beginning alone, (?i)"
            )
        if self.depth == _DEEPEST:
            raise self.error("has too many groups inside one another", f"use {_DEEPEST} at most")
        opened = self.pos
        self.pos = start.end()
        self.depth += 1
        node = self.either()
        self.depth -= 1
        if not self.take(")"):
            self.pos = opened
            raise self.error("has a ( without its )", r"write \( for the character itself")
        return node

    def quantified(self, node: Node) -> Node:
        count = _COUNT.match(self.text, self.pos)
        if self.peek() in _SIGNS:
            node = Repeat(node, *_SIGNS[self.peek()])
            self.pos += 1
        elif count:
            least = int(count[1])
            most = least if not count[2] else int(count[3]) if count[3] else 0
            without_end = bool(count[2]) and not count[3]
            if max(least, most) > MOST_REPEATS or (most < least and not without_end):
                raise self.error(f"has the count {count[0]}", f"count from less to more, up to {MOST_REPEATS}")
            self.pos = count.end()
            node = Repeat(node, least, None if without_end else most)
        else:
            return node
        self.take("?")  # as few as possible: makes no difference where the whole value must match
        if self.peek() in _SIGNS or _COUNT.match(self.text, self.pos):
            raise self.error("repeats a repetition", "put a group around it")
        return node

    def escape(self) -> frozenset[int]:
        """What stands after a backslash: one character's set."""
        char = self.text[self.pos + 1 : self.pos + 2]
        if char in _CLASSES and char:
            self.pos += 2
            return _CLASSES[char]
        if char == "t":
            self.pos += 2
            return frozenset(b"\t")
        code = _HEX.match(self.text, self.pos + 1)
        if code:
            self.pos = code.end()
            return frozenset([int(code[1] or code[2], 16)])
        if char and char.isascii() and not char.isalnum() and char.isprintable():
            self.pos += 2
            return frozenset(char.encode())
        raise self.error(f"has the escape \\{char}", r"there are \d \w \s \D \W \S \t \xHH and \ before punctuation")

    def char_class(self) -> frozenset[int]:
        opened = self.pos
        self.pos += 1
        negated = self.take("^")
        values: frozenset[int] = frozenset()
        first = True
        while first or self.peek() != "]":
            first = False
            if not self.peek():
                self.pos = opened
                raise self.error("has a [ without its ]", r"write \[ for the character itself")
            values |= self.class_item()
        self.pos += 1
        values = self.folded(values)
        return _BYTES - values if negated else values

    def class_item(self) -> frozenset[int]:
        low = self.class_char()
        rest = self.text[self.pos : self.pos + 2]
        if not rest.startswith("-") or rest in ("-", "-]"):
            return low
        start = self.pos
        self.pos += 1
        high = self.class_char()
        if len(low) != 1 or len(high) != 1 or min(high) < min(low):
            self.pos = start
            raise self.error("has a range that can't be", "write it from low to high, as in [a-z]")
        return frozenset(range(min(low), min(high) + 1))

    def class_char(self) -> frozenset[int]:
        char = self.peek()
        if char == "\\":
            return self.escape()
        if self.text.startswith("[:", self.pos):
            raise self.error("has a named class", "write its characters, as in [0-9A-Za-z]")
        if not char.isascii():
            raise self.error(f"has {char!r} in a class", "classes are about bytes: write (a|b) for what is not ASCII")
        self.pos += 1
        return frozenset(char.encode())

    def folded(self, values: frozenset[int]) -> frozenset[int]:
        if not self.fold:
            return values
        letters = bytes(value for value in values if value < 0x80)  # noqa: PLR2004 - ASCII
        return values | frozenset(letters.upper()) | frozenset(letters.lower())

    def peek(self) -> str:
        return self.text[self.pos : self.pos + 1]

    def take(self, char: str) -> bool:
        found = self.peek() == char
        self.pos += found
        return found

    def error(self, problem: str, remedy: str) -> UnfitError:
        return UnfitError(f"{problem} (at its character {self.pos + 1})", remedy)


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
            signs = (sign for sign, counts in _SIGNS.items() if counts == (least, most))
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
    if values == _DOT:
        return "."
    if len(values) == 1:
        return _byte(min(values))
    negated = max(values, default=255) == 255  # noqa: PLR2004 - no single char, and none at all, are negations too
    listed = sorted(_BYTES - values if negated else values)
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


def _counted(node: Node) -> int:
    match node:
        case Chars():
            return 1
        case Repeat(part, least, most):
            return max(1, least, most or 0) * _counted(part)
        case _:
            return max(map(_counted, node.parts), default=1)


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
