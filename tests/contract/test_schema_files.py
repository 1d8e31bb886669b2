"""The schemas in docs/ are those of the model. To write them anew: `make schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hairpin.model.schema import match_json_schema, session_json_schema

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "schema"), [("session", session_json_schema()), ("match", match_json_schema())])
def test_the_file_is_current(name, schema):
    assert json.loads((DOCS / f"{name}.schema.json").read_text()) == schema, "run `make schema`"
