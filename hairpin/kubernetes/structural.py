"""A shape of the model as a *structural* schema: the OpenAPI v3 that a CustomResourceDefinition may have.

It has no references, no `if`, no `const`, no bounded recursion and no closed objects: fields that are not known are refused by a
client that asks for strict validation (kubectl does, so does hairpin), and dropped otherwise. Regular expressions are RE2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hairpin.model.match_json import match_schema
from hairpin.model.match_rules import SUBJECTS
from hairpin.model.shape import Choice, Field, JsonSchema, ListOf, Moment, Record, Shape, Text, Whole

MATCH_LEVELS = 3
"""How deep a match is described. What is nested deeper is kept as it is, and the controller reads it."""
_SURROGATES = r"\ud800-\udfff"
"""JSON's texts hold none in Go, and RE2 does not know the notation."""


def rule(expression: str, message: str, *, field: str = "", reason: str = "FieldValueInvalid") -> JsonSchema:
    """A CEL rule. The API server puts the field's path before the message.

    Args:
        expression: true if all is well.
        message: what is wrong and what would be right.
        field: below the schema that has the rule, when it is about one field: `.target`.
        reason: Kubernetes' word for the kind of error.
    """
    found = {"rule": expression, "message": message, "reason": reason}
    return {**found, "fieldPath": field} if field else found


def cel_text(text: str) -> str:
    """A text as CEL's literal."""
    return json.dumps(text, ensure_ascii=False)


def structural(shape: Shape[Any], *, spoken: bool = True) -> JsonSchema:
    """The structural schema of a shape.

    Args:
        shape: of what.
        spoken: whether texts that are refused are refused in the shape's own words, by a CEL rule, or by their pattern.
    """
    match shape:
        case Text():
            return _text(shape, spoken=spoken)
        case Choice():
            return {"type": "string", "enum": [str(word) for word in shape.words]}
        case Whole():
            return {"type": "integer", "format": "int64", "minimum": shape.least, "maximum": shape.most}
        case Moment():
            return {"type": "string", "format": "date-time", "pattern": shape.schema()["pattern"]}
        case ListOf():
            bounds = {"maxItems": shape.most, **({"minItems": shape.least} if shape.least else {})}
            return {"type": "array", "items": structural(shape.item, spoken=False), **bounds}
        case Record():
            return _record(shape, spoken=spoken)
    return _own(shape.schema())


def _own(schema: JsonSchema) -> JsonSchema:
    """Of a shape that is described by its JSON Schema alone: a text, or a number or text."""
    if "oneOf" not in schema:
        return _converted_text(schema)
    number, text = schema["oneOf"]
    return int_or_string(
        number["minimum"], number["maximum"], text, "is no port or range of ports; write it like 443 or 8000-8100"
    )


def int_or_string(least: int, most: int, text: JsonSchema, otherwise: str) -> JsonSchema:
    """A whole number within bounds, or a text with a JSON Schema of its own; `otherwise` is said of other texts."""
    fits = f"size(self) <= {text['maxLength']} && self.matches({cel_text(re2(text['pattern']))})"
    if "not" in text:
        fits += f" && !self.matches({cel_text(re2(text['not']['pattern']))})"
    return {
        "x-kubernetes-int-or-string": True,
        "maxLength": 64,
        "x-kubernetes-validations": [
            rule(
                f"type(self) != int || (self >= {least} && self <= {most})", f"is out of range; use {least} to {most}"
            ),
            rule(f"type(self) != string || ({fits})", otherwise),
        ],
    }


def _text(shape: Text, *, spoken: bool) -> JsonSchema:
    schema: JsonSchema = {"type": "string", "maxLength": shape.most}
    if shape.least:
        schema["minLength"] = shape.least
    pattern = re2(shape.pattern)
    if pattern == r"[\s\S]*":
        return schema
    if spoken and shape.remedy:
        message = f"is not {shape.what}; {shape.remedy}"
        return {**schema, "x-kubernetes-validations": [rule(f"self.matches({cel_text(f'^(?:{pattern})$')})", message)]}
    return {**schema, "pattern": f"^(?:{pattern})$"}


def _record(shape: Record[Any], *, spoken: bool) -> JsonSchema:
    schema: JsonSchema = {
        "type": "object",
        "properties": {name: _field(entry, spoken=spoken) for name, entry in shape.fields.items()},
    }
    needed = [name for name, entry in shape.fields.items() if entry.needed]
    if needed:
        schema["required"] = needed
    if shape.open:
        schema["x-kubernetes-preserve-unknown-fields"] = True
    bounds = {name: value for name, value in shape.rules.items() if name in ("minProperties", "maxProperties")}
    return {**schema, **bounds}


def _field(entry: Field, *, spoken: bool) -> JsonSchema:
    schema = structural(entry.shape, spoken=spoken)
    # Defaults of choices and numbers are filled in, so that columns show them; an empty text says as much as none.
    if isinstance(entry.shape, Choice | Whole) and entry.default is not None:
        return {**schema, "default": str(entry.default) if isinstance(entry.default, str) else entry.default}
    return schema


def re2(pattern: str) -> str:
    """A pattern of the model's, as RE2 reads it."""
    return pattern.replace(_SURROGATES, "")


def structural_match(levels: int = MATCH_LEVELS) -> JsonSchema:
    """A match, described some levels deep. What is not known is kept, never dropped: without it a match is another."""
    schema = match_schema()
    return _node(schema["properties"], levels)


def _node(words: Mapping[str, JsonSchema], levels: int) -> JsonSchema:
    one: JsonSchema = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "x-kubernetes-preserve-unknown-fields": True,
    }
    if not levels:
        return one
    below = _node(words, levels - 1)
    properties = {}
    for word, content in words.items():
        if word == "not":
            properties[word] = below
        elif content.get("type") == "array":
            properties[word] = {**content, "items": below}
        elif word in SUBJECTS:
            properties[word] = _condition(word, content)
        else:
            properties[word] = {"type": "string", **content}
    known = " || ".join(f"has(self.{word})" for word in words)
    message = f"has no condition that is known; write one of {', '.join(words)}, as in {{method: POST}}"
    return {**one, "properties": properties, "x-kubernetes-validations": [rule(known, message)]}


def _condition(word: str, schema: JsonSchema) -> JsonSchema:
    """A condition on a string. Each of its fields is described; that it says one thing is a rule."""
    subject = SUBJECTS[word]
    properties = {name: _converted(content) for name, content in schema["properties"].items()}
    rules = [
        rule(f"!self.{subject.name_field}.matches({cel_text(refusal.pattern)})", f"{refusal.problem}; {refusal.remedy}")
        for refusal in subject.name.refusals
    ]
    if rules:
        properties[subject.name_field].pop("not")
        for one in rules:
            one["fieldPath"] = f".{subject.name_field}"
    kinds = [name for name in properties if name != subject.name_field]
    said = " + ".join(f"(has(self.{kind}) ? 1 : 0)" for kind in kinds)
    message = f"says not one thing about its value; give one of {', '.join(kinds)}"
    return {
        "type": "object",
        "description": schema["description"],
        "properties": properties,
        "required": schema.get("required", []),
        # What is not known is kept, and counted: it was meant to say something.
        "maxProperties": len(schema.get("required", ())) + 1,
        "x-kubernetes-preserve-unknown-fields": True,
        "x-kubernetes-validations": [rule(f"{said} == 1", message), *rules],
    }


def _converted(schema: JsonSchema) -> JsonSchema:
    if "const" in schema:
        return {"type": "boolean", "enum": [schema["const"]]}
    return _converted_text(schema)


def _converted_text(schema: JsonSchema) -> JsonSchema:
    kept = {name: value for name, value in schema.items() if name in ("type", "minLength", "maxLength", "not")}
    return {**kept, "pattern": re2(schema["pattern"])}
