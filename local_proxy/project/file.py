"""hairpin.yaml: found, read, and told of by line and key.

# yaml-language-server: $schema=…/docs/hairpin.schema.json
context: staging
namespace: shop
env: ${HAIRPIN_ENV:-$USER}
services:
  checkout:
    target: deployment/checkout
    command: [python, checkout.py]
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.yaml_file import load_yaml_lines
from local_proxy.project.keys import SERVICES, Key, document_shape

NAME = "hairpin.yaml"
_BRACED = re.compile(
    r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|[^}])*))?\}"
)
_WHOLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of the file itself, or of one of its services."""

    where: str
    """Its dotted path; empty for the file itself."""
    values: Mapping[str, Any]
    """In the order of the file."""


@dataclass(frozen=True, slots=True)
class Project:
    """A file that was read."""

    path: Path
    common: Section
    services: Mapping[str, Section]
    lines: Mapping[str, int]

    @property
    def shown(self) -> str:
        """Its path as it is shown: from here, if that is shorter."""
        return min(str(self.path), os.path.relpath(self.path), key=len)

    def at(self, where: str) -> str:
        """Where a field stands, for an error: `hairpin.yaml:4: services.checkout.port`."""
        line = self.lines.get(where)
        return f"{self.shown}:{line}: {where}" if line else f"{self.shown}: {where}" if where else self.shown


def find_project(start: Path) -> Path | None:
    """The nearest hairpin.yaml, from a folder upwards."""
    return next((folder / NAME for folder in (start, *start.parents) if (folder / NAME).is_file()), None)


def read_project(path: Path, keys: Mapping[str, Key]) -> Project:
    """Read a hairpin.yaml.

    Raises:
        NotFoundError: it can't be read.
        InvalidFieldError: it is no YAML, or a key is wrong; the message has file, line and key.
    """
    document, lines = load_yaml_lines(path)
    project = Project(path.absolute(), Section("", {}), {}, lines)
    document = {} if document is None else document
    try:
        read = document_shape(keys).read(document, "")
    except InvalidFieldError as error:
        raise InvalidFieldError(project.at(error.field), error.value, error.problem, error.remedy) from None
    services = {
        name: Section(f"{SERVICES}.{name}", _ordered(found, document[SERVICES][name]))
        for name, found in read.pop(SERVICES, {}).items()
    }
    return Project(project.path, Section("", _ordered(read, document)), services, lines)


def _ordered(found: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    # A Record reads in its own order; of rules, the first that matches holds.
    return {name: found[name] for name in document if name in found}


def filled_in(text: str, environ: Mapping[str, str], where: str) -> str:
    """A text with `${NAME}` and `${NAME:-default}` replaced, and `$NAME` where it is all there is; `$${` is `${`.

    Raises:
        NotFoundError: a variable is not set, or empty, and has no default.
    """

    def value(name: str, default: str | None) -> str:
        if environ.get(name):
            return environ[name]
        if default:
            return filled_in(default, environ, where)
        raise NotFoundError(
            f"{where}: the variable {name} is not set; set it, or give it a default: ${{{name}:-VALUE}}"
        )

    if whole := _WHOLE.fullmatch(text):
        return value(whole[1], None)
    return _BRACED.sub(lambda found: value(found["name"], found["default"]) if found["name"] else "${", text)
