"""JSON Schema (draft 2020-12) of what the readers take, made from the same descriptions.

Stricter than the schema are the readers in what it can't say: what RE2 takes (`format: re2`), how deep and how large a match
may be, that a time exists, and that texts can be encoded in UTF-8.
"""

from __future__ import annotations

from hairpin.model.match_json import match_schema
from hairpin.model.session_shapes import API_VERSION, SESSION
from hairpin.model.shape import JsonSchema

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ID = f"https://{API_VERSION}/"


def session_json_schema() -> JsonSchema:
    """The schema of a Session."""
    return {"$schema": _DRAFT, "$id": f"{_ID}session.json", **SESSION.schema(), "$defs": {"match": match_schema()}}


def match_json_schema() -> JsonSchema:
    """The schema of a match alone."""
    return {"$schema": _DRAFT, "$id": f"{_ID}match.json", "$ref": "#/$defs/match", "$defs": {"match": match_schema()}}
