"""YAML files that users write, read as what JSON could hold as well.

Of YAML 1.1's surprises none is left: `no` and `on` are words, `12:30` and dates are texts, a key that is there twice is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hairpin.errors import InvalidFieldError, NotFoundError

if TYPE_CHECKING:
    import yaml

LONGEST = 1 << 20
"""Bytes of a file."""


def load_yaml(path: Path) -> Any:
    """The file's one document: mappings, lists, texts, numbers, true, false and None.

    Raises:
        NotFoundError: it can't be read.
        InvalidFieldError: it is no YAML; the message has line and column.
    """
    return load_yaml_lines(path)[0]


def load_yaml_lines(path: Path) -> tuple[Any, dict[str, int]]:
    """The same, and the line of each field by its dotted path: `services.checkout.ports[0]`.

    Raises:
        NotFoundError: it can't be read.
        InvalidFieldError: it is no YAML; the message has line and column.
    """
    import yaml  # noqa: PLC0415 # takes a while to import

    try:
        content = path.read_bytes()
        if len(content) > LONGEST:
            raise InvalidFieldError(str(path), f"{len(content)} bytes", "are too many", f"use {LONGEST} at most")
        loader = _loader()(content.decode())  # a SafeLoader
        try:
            node = loader.get_single_node()
            lines: dict[str, int] = {}
            if node is None:
                return None, lines
            _note_lines(node, "", lines, ())
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except OSError as error:
        raise NotFoundError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidFieldError(str(path), error.reason, "is not UTF-8", "save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise InvalidFieldError(where, error.problem, "is no YAML", "mend this line") from error
    except yaml.YAMLError as error:
        raise InvalidFieldError(str(path), str(error), "is no YAML", "drop what no text file should hold") from error


def _note_lines(node: yaml.Node, where: str, lines: dict[str, int], above: tuple[yaml.Node, ...]) -> None:
    """Note where each field stands; one that contains itself, by an alias, once."""
    import yaml  # noqa: PLC0415

    if node in above:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{where}.{key.value}" if where else str(key.value)
            lines[path] = key.start_mark.line + 1
            _note_lines(value, path, lines, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{where}[{index}]"] = value.start_mark.line + 1
            _note_lines(value, f"{where}[{index}]", lines, (*above, node))


def _loader() -> type[yaml.SafeLoader]:
    """A safe loader of YAML 1.2's core schema, without octal and hexadecimal numbers."""
    import yaml  # noqa: PLC0415

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 # YAML's own way

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} for the second time", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
        ("float", r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", list("-+0123456789")),
    ):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)
    return Loader
