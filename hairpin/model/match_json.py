"""Matches in JSON and YAML, as files and the API hold them: one key per node.

{"header": {"name": "x-user", "exact": "42"}}    {"baggage": {"key": "env", "present": true}}
{"path": {"prefix": "/api"}}                     {"method": "POST"}
{"and": [...]}   {"or": [...]}   {"not": {...}}
"""

from __future__ import annotations

from typing import Any

from hairpin.errors import InvalidFieldError
from hairpin.model.match import And, Match, Method, Not, Or, StringKind, StringPredicate
from hairpin.model.match_rules import DEEPEST, LARGEST, METHOD, SUBJECTS, Subject, check_bounds, subject_of
from hairpin.model.shape import Field, JsonSchema, ListOf, Record, UnfitError, shown
from hairpin.model.suggest import closest

_WORDS = (*SUBJECTS, "method", "and", "or", "not")
PRESENT = "present"


def match_from_json(value: Any, field: str = "match") -> Match:
    """Read a match.

    Args:
        value: what a JSON or YAML parser made of it.
        field: where it stands, for errors.

    Raises:
        InvalidFieldError: it can't be used; names the dotted field, the value and the remedy.
    """
    match = _node(value, field, 1)
    try:
        check_bounds(match)
    except UnfitError as error:
        raise InvalidFieldError(field, shown(value), error.problem, error.remedy) from None
    return match


def match_to_json(match: Match) -> dict[str, Any]:
    """Write a match; `match_from_json` reads the same again."""
    match match:
        case And(parts):
            return {"and": [match_to_json(part) for part in parts]}
        case Or(parts):
            return {"or": [match_to_json(part) for part in parts]}
        case Not(part):
            return {"not": match_to_json(part)}
        case Method(name):
            return {"method": name}
        case _:
            found = subject_of(match)
            assert found is not None  # noqa: S101 - the other conditions all have one
            subject, name, predicate = found
            named = {subject.name_field: name} if subject.name_field else {}
            return {subject.word: {**named, **_predicate_to_json(predicate)}}


def _predicate_to_json(predicate: StringPredicate | None) -> dict[str, Any]:
    return {PRESENT: True} if predicate is None else {predicate.kind.value: predicate.value}


def _node(value: Any, where: str, level: int) -> Match:
    if not isinstance(value, dict):
        raise InvalidFieldError(where, shown(value), "is not a mapping", 'write it as in {"method": "POST"}')
    if len(value) != 1:
        keys = ", ".join(map(str, value))
        problem = f"has the keys {keys}" if value else "is empty"
        raise InvalidFieldError(
            where, shown(value), problem, 'write one key per node, and several below {"and": [...]}'
        )
    if level > DEEPEST:
        raise InvalidFieldError(where, shown(value), "is nested too deep", f"use {DEEPEST} levels at most")
    [(word, content)] = value.items()
    below = f"{where}.{word}" if where else str(word)
    match word:
        case "and":
            return And(_nodes(content, below, level))
        case "or":
            return Or(_nodes(content, below, level))
        case "not":
            return Not(_node(content, below, level + 1))
        case "method":
            return Method(METHOD.read(content, below))
        case _ if word in SUBJECTS:
            return _CONDITIONS[word].read(content, below)
    guess = closest(str(word), _WORDS)
    remedy = f"did you mean {guess!r}?" if guess else f"use one of {', '.join(_WORDS)}"
    raise InvalidFieldError(below, shown(content), "is no known condition", remedy)


def _nodes(value: Any, where: str, level: int) -> tuple[Match, ...]:
    if isinstance(value, list) and value and len(value) <= LARGEST:
        return tuple(_node(item, f"{where}[{index}]", level + 1) for index, item in enumerate(value))
    return ListOf(_ANYTHING, least=1, most=LARGEST).read(value, where)


class _Anything:
    """The items of a list that is refused anyway."""

    def read(self, value: Any, where: str) -> Any:
        raise InvalidFieldError(where, shown(value), "can't be read", "write a match")

    def schema(self) -> JsonSchema:
        return {"$ref": "#/$defs/match"}


_ANYTHING = _Anything()


class _True:
    """`present: true`. For the opposite there is `not`."""

    def read(self, value: Any, where: str) -> bool:
        if value is not True:
            remedy = 'write {"not": {...: {"present": true}}} for what must not be there'
            raise InvalidFieldError(where, shown(value), "is not true", remedy)
        return value

    def schema(self) -> JsonSchema:
        return {"const": True}


def _condition(subject: Subject) -> Record[Match]:
    kinds = {kind.value: Field(text) for kind, text in subject.values.items()}
    named = {}
    if subject.name_field:
        named = {subject.name_field: Field(subject.name, needed=True)}
        kinds[PRESENT] = Field(_True())

    def build(found: dict[str, Any], where: str) -> Match:
        given = [kind for kind in kinds if found[kind] is not None]
        if len(given) != 1:
            problem = f"has {' and '.join(given)}" if given else "does not say what its value must be"
            remedy = f"give one of {', '.join(kinds)}"
            raise InvalidFieldError(where, found.get(subject.name_field, subject.word), problem, remedy)
        [kind] = given
        predicate = None if kind == PRESENT else StringPredicate(StringKind(kind), found[kind])
        return subject.make(found.get(subject.name_field, ""), predicate)

    rules: JsonSchema = {"oneOf": [{"required": [kind]} for kind in kinds], "description": subject.description}
    return Record(fields={**named, **kinds}, build=build, rules=rules)


_CONDITIONS = {word: _condition(subject) for word, subject in SUBJECTS.items()}


def match_schema() -> JsonSchema:
    """JSON Schema of a match, for `#/$defs/match`. It can't say how deep and how large one may be, nor what RE2 takes."""
    reference: JsonSchema = {"$ref": "#/$defs/match"}
    some = {"type": "array", "items": reference, "minItems": 1, "maxItems": LARGEST}
    nodes: dict[str, JsonSchema] = {word: condition.schema() for word, condition in _CONDITIONS.items()}
    nodes |= {"method": METHOD.schema(), "and": some, "or": some, "not": reference}
    return {
        "description": "The predicate that picks a session's requests; one key per node.",
        "type": "object",
        "properties": nodes,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
