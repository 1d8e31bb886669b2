"""JSON with comments, as VS Code's own files are: read with the place of each value, so that an edit touches nothing else.

Comments and trailing commas are allowed, as VS Code allows them; a byte order mark at the start as well. Pure.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from hairpin.errors import HairpinError

_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9.+-])")
_STRING = re.compile(r'"(?:[^"\\\r\n]|\\.)*"')
_WORDS = {"true": True, "false": False, "null": None}
_WORD = re.compile(r"[A-Za-z]+")
_DEEPEST = 200
_BYTE_ORDER_MARK = "\ufeff"


class JsoncError(HairpinError):
    """A text that is no JSON with comments.

    Args:
        text: all of it.
        at: where it goes wrong.
        problem: what is wrong there.
    """

    def __init__(self, text: str, at: int, problem: str) -> None:
        before = re.split(r"\r\n|\r|\n", text[:at].removeprefix(_BYTE_ORDER_MARK))
        self.line, self.column = len(before), len(before[-1]) + 1
        self.problem = problem
        super().__init__(f"line {self.line}, column {self.column}: {problem}")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands: `text[start:end]`."""

    start: int
    end: int
    value: Any
    """As Python has it; of a name that stands twice in an object, the last counts."""
    children: tuple[Child, ...] = ()
    """An object's members or an array's items, in the order of the text."""


@dataclass(frozen=True, slots=True)
class Child:
    """A member of an object, or an item of an array."""

    start: int
    """Where its name starts, or an item's value."""
    key: str | None
    node: Node = field(repr=False)

    @property
    def end(self) -> int:
        """Where its value ends."""
        return self.node.end


def parse(text: str) -> Node:
    """Read a text.

    Raises:
        JsoncError: it is none.
    """
    start = skip_blank(text, len(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else 0)
    node = _value(text, start, 0)
    end = skip_blank(text, node.end)
    if end < len(text):
        raise JsoncError(text, end, f"{text[end]!r} after the end of the value")
    return node


def skip_blank(text: str, at: int) -> int:
    """Where the white space and comments that start here end."""
    end = _BLANK.match(text, at).end()  # type: ignore[union-attr] # it matches the empty text
    if text.startswith("/*", end):
        raise JsoncError(text, end, "a comment that does not end")
    return end


def _value(text: str, at: int, depth: int) -> Node:
    if depth > _DEEPEST:
        raise JsoncError(text, at, f"more than {_DEEPEST} levels")
    if text.startswith("{", at):
        return _container(text, at, depth, "}")
    if text.startswith("[", at):
        return _container(text, at, depth, "]")
    if text.startswith('"', at):
        return _string(text, at)
    if number := _NUMBER.match(text, at):
        return Node(at, number.end(), json.loads(number[0]))
    word = _WORD.match(text, at)
    if word and word[0] in _WORDS:
        return Node(at, word.end(), _WORDS[word[0]])
    found = repr(word[0] if word else text[at]) if at < len(text) else "the end"
    raise JsoncError(text, at, f"a value is expected, not {found}")


def _string(text: str, at: int) -> Node:
    found = _STRING.match(text, at)
    if not found:
        raise JsoncError(text, at, "a text whose quotes are not closed on its line")
    try:
        return Node(at, found.end(), json.loads(found[0], strict=False))
    except json.JSONDecodeError as error:
        raise JsoncError(text, at + error.pos, "an escape that JSON does not have") from None


def _container(text: str, start: int, depth: int, closing: str) -> Node:
    children: list[Child] = []
    at = skip_blank(text, start + 1)
    while not text.startswith(closing, at):
        child = _member(text, at, depth) if closing == "}" else Child(at, None, _value(text, at, depth + 1))
        children.append(child)
        at = skip_blank(text, child.end)
        if text.startswith(",", at):
            at = skip_blank(text, at + 1)
        elif not text.startswith(closing, at):
            found = repr(text[at]) if at < len(text) else "the end"
            raise JsoncError(text, at, f"a comma or {closing} is expected, not {found}")
    value: Any = (
        {child.key: child.node.value for child in children}
        if closing == "}"
        else [child.node.value for child in children]
    )
    return Node(start, at + 1, value, tuple(children))


def _member(text: str, at: int, depth: int) -> Child:
    if not text.startswith('"', at):
        found = repr(text[at]) if at < len(text) else "the end"
        raise JsoncError(text, at, f"a name in quotes is expected, not {found}")
    key = _string(text, at)
    colon = skip_blank(text, key.end)
    if not text.startswith(":", colon):
        raise JsoncError(text, colon, "a colon is expected after a name")
    return Child(at, str(key.value), _value(text, skip_blank(text, colon + 1), depth + 1))
