"""Shapes: what a JSON value must look like, described once for reading it and for its JSON Schema (draft 2020-12).

A shape reads a value or raises InvalidFieldError with the field's dotted path, the value and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from hairpin.errors import InvalidFieldError
from hairpin.model.suggest import closest

JsonSchema = dict[str, Any]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_LONGEST_SHOWN = 80


class Shape(Protocol[T_co]):
    """Reads a value and describes it."""

    def read(self, value: Any, where: str) -> T_co:
        """The value, checked. `where` is its field's dotted path."""

    def schema(self) -> JsonSchema:
        """The same as JSON Schema."""


def shown(value: Any) -> Any:
    """The value as an error shows it: not all of a long one."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "…"
    if isinstance(value, dict | list) and len(repr(value)) > _LONGEST_SHOWN:
        return f"{type(value).__name__} of {len(value)}"
    return value


@dataclass(frozen=True, slots=True)
class Refusal:
    """Texts of this pattern are refused with words of their own."""

    pattern: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A string.

    Patterns keep to what Python and ECMA-262 (JSON Schema's regular expressions) read alike, and have no anchors.
    """

    what: str
    """What it is, for the problem `is not …`."""
    remedy: str
    pattern: str = r"[\s\S]*"
    """The whole string must match."""
    least: int = 0
    most: int = 256
    """Bounds of its length, in characters."""
    refusals: tuple[Refusal, ...] = ()
    """Judged before the pattern; their patterns are searched for."""
    check: Callable[[str], None] | None = None
    """What no pattern can say; raises UnfitError. The schema knows it as `format`."""
    format: str = ""
    lower: bool = False
    """Whether it is the same in any case, and read as lower case."""

    def read(self, value: Any, where: str) -> str:
        """The string."""
        if not isinstance(value, str):
            raise InvalidFieldError(where, shown(value), "is not a string", f"give {self.what}, in quotes")
        if len(value) < self.least:
            raise InvalidFieldError(where, shown(value), "is empty", self.remedy)
        if len(value) > self.most:
            problem = f"is {len(value)} characters long"
            raise InvalidFieldError(where, shown(value), problem, f"use {self.most} at most")
        for refusal in self.refusals:
            if re.search(refusal.pattern, value):
                raise InvalidFieldError(where, shown(value), refusal.problem, refusal.remedy)
        if not re.fullmatch(self.pattern, value):
            raise InvalidFieldError(where, shown(value), f"is not {self.what}", self.remedy)
        if self.check is not None:
            try:
                self.check(value)
            except UnfitError as error:
                raise InvalidFieldError(where, shown(value), error.problem, error.remedy) from None
        return value.lower() if self.lower else value

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        schema: JsonSchema = {"type": "string", "maxLength": self.most, "pattern": f"^(?:{self.pattern})$"}
        if self.least:
            schema["minLength"] = self.least
        if self.refusals:
            schema["not"] = {"pattern": "|".join(f"(?:{refusal.pattern})" for refusal in self.refusals)}
        if self.format:
            schema["format"] = self.format
        return schema


class UnfitError(ValueError):
    """A value that can't be used, from one who does not know its field."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds, both included."""

    least: int
    most: int

    def read(self, value: Any, where: str) -> int:
        """The number. JSON has but one kind of number: 1.0 is whole too."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidFieldError(where, shown(value), "is not a whole number", self._remedy)
        if not self.least <= value <= self.most:
            raise InvalidFieldError(where, value, "is out of range", self._remedy)
        return value

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    @property
    def _remedy(self) -> str:
        return f"use {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, value: Any, where: str) -> str:
        """The word."""
        if not isinstance(value, str) or value not in self.words:
            guess = closest(value, self.words) if isinstance(value, str) else None
            remedy = f"did you mean {guess!r}?" if guess else f"use one of {', '.join(self.words)}"
            raise InvalidFieldError(where, shown(value), "is not known", remedy)
        return value

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time as RFC 3339 writes it; read as UTC."""

    def read(self, value: Any, where: str) -> datetime:
        """The time, in UTC."""
        remedy = "write it as in 2026-01-31T12:00:00Z"
        if not isinstance(value, str) or not re.fullmatch(_RFC3339, value):
            raise InvalidFieldError(where, shown(value), "is not a time of RFC 3339", remedy)
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidFieldError(where, value, "is a time that there is not", remedy) from None

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        return {"type": "string", "format": "date-time", "pattern": f"^(?:{_RFC3339})$"}


_RFC3339 = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"


def moment_text(moment: datetime) -> str:
    """A time as Kubernetes writes it: UTC, `Z`, no fraction where it has none."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class ListOf(Generic[T]):
    """A list."""

    item: Shape[T]
    least: int = 0
    most: int = 64

    def read(self, value: Any, where: str) -> tuple[T, ...]:
        """The items."""
        if not isinstance(value, list):
            raise InvalidFieldError(where, shown(value), "is not a list", "write it as in [a, b]")
        if len(value) < self.least:
            raise InvalidFieldError(where, value, "is empty", "put something into it, or leave it out")
        if len(value) > self.most:
            raise InvalidFieldError(where, f"list of {len(value)}", "is too long", f"use {self.most} items at most")
        return tuple(self.item.read(item, f"{where}[{index}]") for index, item in enumerate(value))

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        schema = {"type": "array", "items": self.item.schema(), "maxItems": self.most}
        return {**schema, "minItems": self.least} if self.least else schema


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object."""

    shape: Shape[Any]
    needed: bool = False
    default: Any = None
    """What is read where the field is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Generic[T]):
    """An object with known fields."""

    fields: Mapping[str, Field]
    build: Callable[[dict[str, Any], str], T]
    """Makes the value of what was read, all fields filled in; told where it stands. Raises InvalidFieldError."""
    rules: JsonSchema = field(default_factory=dict)
    """What `build` demands beyond the fields, in JSON Schema."""
    open: bool = False
    """Whether fields that are not known here are someone else's."""
    refusals: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Unknown fields with a problem and a remedy of their own."""

    def read(self, value: Any, where: str) -> T:
        """What `build` makes of it."""
        if not isinstance(value, dict):
            raise InvalidFieldError(where, shown(value), "is not a mapping", f"write its fields: {self._names}")
        for name in value:
            if name in self.refusals:
                raise InvalidFieldError(_path(where, name), shown(value[name]), *self.refusals[name])
            if name not in self.fields and not self.open:
                guess = closest(str(name), self.fields)
                remedy = f"did you mean {guess!r}?" if guess else f"there are {self._names}"
                raise InvalidFieldError(_path(where, name), shown(value[name]), "is in no known field", remedy)
        found: dict[str, Any] = {}
        for name, entry in self.fields.items():
            if name in value:
                found[name] = entry.shape.read(value[name], _path(where, name))
            elif entry.needed:
                raise InvalidFieldError(_path(where, name), None, "is missing", "add the field")
            else:
                found[name] = entry.default
        return self.build(found, where)

    def schema(self) -> JsonSchema:
        """As JSON Schema."""
        properties = {name: entry.shape.schema() for name, entry in self.fields.items()}
        schema: JsonSchema = {"type": "object", "properties": properties}
        needed = [name for name, entry in self.fields.items() if entry.needed]
        if needed:
            schema["required"] = needed
        if not self.open:
            schema["additionalProperties"] = False
        return {**schema, **self.rules}

    @property
    def _names(self) -> str:
        return ", ".join(self.fields)


def _path(where: str, name: Any) -> str:
    return f"{where}.{name}" if where else str(name)


def without_unknown(shape: Shape[Any], value: Any) -> Any:
    """A value without the fields that its shape does not know, at any depth: a newer program wrote them."""
    if isinstance(shape, Record) and isinstance(value, dict):
        known = {name: entry for name, entry in value.items() if shape.open or name in shape.fields}
        return {
            name: without_unknown(shape.fields[name].shape, entry) if name in shape.fields else entry
            for name, entry in known.items()
        }
    if isinstance(shape, ListOf) and isinstance(value, list):
        return [without_unknown(shape.item, entry) for entry in value]
    return value
