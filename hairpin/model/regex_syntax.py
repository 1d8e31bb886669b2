r"""The part of RE2's syntax that a match may use, read into a tree of `regex`.

Envoy refuses a whole resource for one regular expression that RE2 doesn't take, so a match is read by us first.

Left out, with a message: what RE2 itself does not have (look-around, back-references, possessive quantifiers), and what
nobody needs where the whole value must match (`\b`, anchors inside, flags other than a leading `(?i)`).
"""

from __future__ import annotations

import re
from functools import lru_cache

from hairpin.model.regex import BYTES, DOT, SIGNS, Chars, Either, Node, Repeat, Sequence, steps
from hairpin.model.shape import UnfitError

LONGEST = 256
"""Characters of an expression."""
MOST_REPEATS = 1000
"""RE2's own bound, of nested repetitions taken together (re2/parse.cc, kMaxRepeat)."""
MOST_STEPS = 10_000
"""Of the program that RE2 makes of it, roughly. Istio's proxies refuse more than 32,768 (re2.max_program_size.error_level)."""
_DEEPEST = 20
_DIGITS = frozenset(b"0123456789")
_WORD = _DIGITS | frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACE = frozenset(b"\t\n\f\r ")  # RE2's \s: without \v, unlike Python's
_CLASSES = {"d": _DIGITS, "D": BYTES - _DIGITS, "w": _WORD, "W": BYTES - _WORD, "s": _SPACE, "S": BYTES - _SPACE}
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,2})\})")
_COUNT = re.compile(r"\{(\d{1,4})(?:(,)(\d{1,4})?)?\}")
_GROUP = re.compile(r"\((?:\?(?::|P<[A-Za-z_]\w*>)|(?!\?))")


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
                return Chars(DOT)
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
        if self.peek() in SIGNS:
            node = Repeat(node, *SIGNS[self.peek()])
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
        if self.peek() in SIGNS or _COUNT.match(self.text, self.pos):
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
        return BYTES - values if negated else values

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


def _counted(node: Node) -> int:
    match node:
        case Chars():
            return 1
        case Repeat(part, least, most):
            return max(1, least, most or 0) * _counted(part)
        case _:
            return max(map(_counted, node.parts), default=1)
