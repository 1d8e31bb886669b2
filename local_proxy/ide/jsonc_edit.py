"""Edits of JSON with comments that leave every byte which is not theirs as it is. Pure.

A path is the names and indexes that lead to a value: `("configurations", 0, "env")`. New text is indented as the text
around it is, and has its line ends.
"""

from __future__ import annotations

import json
import re
from typing import Any

from local_proxy.ide.jsonc import Child, JsoncError, Node, parse, skip_blank

Path = tuple[str | int, ...]
_INDENT = "    "
"""VS Code's default."""
_REST_OF_LINE = re.compile(r"(?:[ \t]|/\*[^\r\n]*?\*/)*(?://[^\r\n]*)?")


def find(root: Node, path: Path) -> Node | None:
    """The value at a path; None if there is none."""
    node = root
    for step in path:
        child = _child(node, step)
        if child is None:
            return None
        node = child.node
    return node


def set_value(text: str, path: Path, value: Any) -> str:
    """The text with a value at a path, whose parent is there; unchanged if it has that value.

    Raises:
        JsoncError: the text is not as it must be.
    """
    root = parse(text)
    found = find(root, path)
    if found is not None:
        if _same(found.value, value):
            return text
        shown = _rendered(text, root, value, _indent_at(text, found.start))
        return text[: found.start] + shown + text[found.end :]
    parent = _container(text, root, path[:-1], dict)
    return _appended(text, root, parent, value, str(path[-1]))


def append(text: str, path: Path, value: Any) -> str:
    """The text with one more item at the end of the array at a path.

    Raises:
        JsoncError: the text is not as it must be.
    """
    root = parse(text)
    return _appended(text, root, _container(text, root, path, list), value, None)


def remove(text: str, path: Path) -> str:
    """The text without the member at a path; unchanged if there is none. Comments stay."""
    root = parse(text)
    parent = find(root, path[:-1])
    child = _child(parent, path[-1]) if parent else None
    if parent is None or child is None:
        return text
    start, end = child.start, child.end
    after = skip_blank(text, end)
    if text.startswith(",", after):
        # What stands between the value and its comma, a comment say, stays.
        text = text[:after] + text[after + 1 :]
    else:
        index = parent.children.index(child)
        if index:
            comma = skip_blank(text, parent.children[index - 1].end)
            text = text[:comma] + text[comma + 1 :]
            start, end = start - 1, end - 1
    line = _line_start(text, start)
    rest = re.compile(r"[ \t]*(\r\n|\r|\n)").match(text, end)
    if not text[line:start].strip(" \t") and rest:
        return text[:line] + text[rest.end() :]
    return text[:start] + text[end:]


def _child(node: Node, step: str | int) -> Child | None:
    if isinstance(step, int):
        return node.children[step] if isinstance(node.value, list) and step < len(node.children) else None
    return next((child for child in reversed(node.children) if child.key == step), None)


def _container(text: str, root: Node, path: Path, kind: type) -> Node:
    node = find(root, path)
    where = ".".join(map(str, path)) or "the file"
    if node is None:
        raise JsoncError(text, root.start, f"{where} is not there")
    if not isinstance(node.value, kind):
        raise JsoncError(text, node.start, f"{where} must be {'a list, [ ]' if kind is list else 'an object, { }'}")
    return node


def _appended(text: str, root: Node, parent: Node, value: Any, key: str | None) -> str:
    eol = _line_end(text)
    base = _indent_at(text, parent.start)
    indent = base + _unit(text, root)
    if parent.children:
        first = parent.children[0].start
        own = text[_line_start(text, first) : first]
        indent = own if not own.strip(" \t") and _line_start(text, first) > parent.start else indent
    shown = f"{json.dumps(key, ensure_ascii=False)}: " if key is not None else ""
    shown += _rendered(text, root, value, indent)
    at, before, after = parent.start + 1, "", ""
    if parent.children:
        last = parent.children[-1].end
        comma = skip_blank(text, last)
        if text.startswith(",", comma):
            at, after = comma + 1, ","
        else:
            at, before = last, ","
    place = _REST_OF_LINE.match(text, at).end()  # type: ignore[union-attr] # it matches the empty text
    # A block comment that goes on in the next line is not cut; it then stands after what is new.
    if not re.compile(r"\s*[\]}]|[ \t]*[\r\n]|[ \t]*/\*").match(text, place):
        place = at
    if text[at:place].isspace():
        place = at
    close = "" if re.compile(r"[^\]}]*[\r\n]").match(text, place) else eol + base
    return text[:at] + before + text[at:place] + eol + indent + shown + after + close + text[place:]


def _rendered(text: str, root: Node, value: Any, indent: str) -> str:
    lines = json.dumps(value, ensure_ascii=False, indent=_unit(text, root)).split("\n")
    return (_line_end(text) + indent).join(lines)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _unit(text: str, root: Node) -> str:
    """One level of indentation."""
    for child in root.children[:1]:
        line = _line_start(text, child.start)
        own = text[line : child.start]
        if own and not own.strip(" \t") and line > root.start:
            return own.removeprefix(_indent_at(text, root.start)) or _INDENT
    return _INDENT


def _line_end(text: str) -> str:
    found = re.search(r"\r\n|\n|\r", text)
    return found[0] if found else "\n"


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _indent_at(text: str, at: int) -> str:
    """The white space with which the line starts in which this stands."""
    line = _line_start(text, at)
    found = re.compile(r"\ufeff?([ \t]*)").match(text, line)
    return found[1] if found else ""
