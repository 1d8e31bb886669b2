"""Shapes of hairpin.yaml's values: what `hairpin.model.shape` has no need for, since JSON's documents are stricter."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from hairpin.errors import InvalidFieldError
from hairpin.model.shape import JsonSchema, Shape, shown
from hairpin.model.suggest import closest

VARIABLE = r"\$(?:\{|[A-Za-z_])"
"""How a text that is filled in from the environment starts."""
MAX_PORT = 65535
_PORT = "PORT"
_PORT_TEXT = rf"^0*[0-9]{{1,5}}$|{VARIABLE}"


@dataclass(frozen=True, slots=True)
class Plain:
    """A flag's value: a text or a whole number, read as text.

    Args:
        metavar: the flag's: `auto|on|off` is a choice, PORT a port's number.
        about: the flag's help.
        choices: argparse's own, if it has any.
    """

    metavar: str
    about: str = ""
    choices: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """What may stand here; empty if it is no choice."""
        return self.choices or (tuple(self.metavar.split("|")) if "|" in self.metavar else ())

    def read(self, value: Any, where: str) -> str:
        """The text."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON Schema knows one kind of number
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidFieldError(where, shown(value), _unlike(value), f"write {self.metavar}")
        text = str(value)
        if not text:
            raise InvalidFieldError(where, "", "is empty", "write a value, or drop the line")
        if re.search(VARIABLE, text):
            return text
        if self.words and text not in self.words:
            guess = closest(text, self.words)
            remedy = f"did you mean {guess!r}?" if guess else f"choose one of {', '.join(self.words)}"
            raise InvalidFieldError(where, shown(value), "is no choice", remedy)
        if self.metavar == _PORT and not (re.search(_PORT_TEXT, text) and 1 <= int(text) <= MAX_PORT):
            raise InvalidFieldError(where, shown(value), "is no port number", f"write a number from 1 to {MAX_PORT}")
        return text

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        variable = {"type": "string", "pattern": VARIABLE}
        if self.words:
            schema: JsonSchema = {"anyOf": [{"enum": list(self.words)}, variable]}
        elif self.metavar == _PORT:
            digits = {"type": "string", "pattern": _port_pattern()}
            schema = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_PORT}, digits, variable]}
        else:
            schema = {"type": ["string", "integer"], "minLength": 1}
        return _described(schema, self.about)


def _port_pattern() -> str:
    """The texts that are a port's number: 1 to 65535."""
    return r"^0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"


@dataclass(frozen=True, slots=True)
class Switch:
    """True or false."""

    about: str = ""

    def read(self, value: Any, where: str) -> bool:
        """Which."""
        if not isinstance(value, bool):
            raise InvalidFieldError(where, shown(value), "is neither true nor false", "write true or false")
        return value

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        return _described({"type": "boolean"}, self.about)


@dataclass(frozen=True, slots=True)
class ListedAs:
    """A list of values; one alone may stand without brackets."""

    item: Plain

    def read(self, value: Any, where: str) -> tuple[str, ...]:
        """The values."""
        if not isinstance(value, list):
            return (self.item.read(value, where),)
        return tuple(self.item.read(item, f"{where}[{index}]") for index, item in enumerate(value))

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        one = {key: value for key, value in self.item.schema().items() if key != "description"}
        return _described({"anyOf": [{"type": "array", "items": one}, one]}, self.item.about)


@dataclass(frozen=True, slots=True)
class Words:
    """A command: a list of words, or one text that is split as a shell would, without being run by one."""

    about: str = ""

    def read(self, value: Any, where: str) -> tuple[str, ...]:
        """The words."""
        if isinstance(value, str):
            try:
                words = shlex.split(value)
            except ValueError as error:
                raise InvalidFieldError(where, value, f"can't be split ({error})", "write [word, another]") from None
            if not words:
                raise InvalidFieldError(where, value, "is empty", "write a command, or drop the line")
            return tuple(words)
        if not isinstance(value, list):
            raise InvalidFieldError(where, shown(value), "is no command", "write [python, app.py], or python app.py")
        if not value:
            raise InvalidFieldError(where, value, "is empty", "write a command, or drop the line")
        return tuple(self._word(item, f"{where}[{index}]", first=index == 0) for index, item in enumerate(value))

    def _word(self, value: Any, where: str, *, first: bool) -> str:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidFieldError(where, shown(value), "is no word", "put it in quotes")
        if first and not str(value):
            raise InvalidFieldError(where, value, "is no program", "write the program's name")
        return str(value)

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        word: JsonSchema = {"type": ["string", "integer"]}
        words = {"type": "array", "minItems": 1, "items": word, "prefixItems": [{**word, "minLength": 1}]}
        # What shlex can't split (an open quote) is beyond a schema: `format` says that there is more to it.
        return _described({"anyOf": [words, {"type": "string", "pattern": r"\S", "format": "shell-words"}]}, self.about)


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping from names."""

    value: Shape[Any]
    about: str = ""
    pattern: str = r"[A-Za-z0-9][A-Za-z0-9._-]*"

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """The values by name."""
        if not isinstance(value, dict):
            raise InvalidFieldError(where, shown(value), "is not a mapping", "write `name: {…}` lines below it")
        found = {}
        for name, item in value.items():
            # ECMA-262's `$` is the very end; Python's lets a line feed follow.
            if not isinstance(name, str) or not re.fullmatch(self.pattern, name):
                raise InvalidFieldError(where, name, "is no name", "use letters, digits, - and _")
            found[name] = self.value.read(item, f"{where}.{name}")
        return found

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        return _described(
            {
                "type": "object",
                "additionalProperties": self.value.schema(),
                # Not `$`: in Python's expressions, which jsonschema takes, a line feed may follow it.
                "propertyNames": {"pattern": rf"^(?:{self.pattern})(?![\s\S])"},
            },
            self.about,
        )


def _described(schema: JsonSchema, about: str) -> JsonSchema:
    return {**schema, "description": about} if about else schema


def _unlike(value: Any) -> str:
    if value is None:
        return "is empty"
    return (
        "is a word of YAML's: put it in quotes" if isinstance(value, bool) else "is neither a text nor a whole number"
    )
