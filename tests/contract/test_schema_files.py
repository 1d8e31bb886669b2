"""The schemas in docs/ are those of the model. To write them anew: `make schema`."""

from __future__ import annotations

import json

import pytest

from tests.support.schemas import DOCS, SCHEMAS


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_file_is_current(name):
    assert json.loads((DOCS / f"{name}.schema.json").read_text()) == SCHEMAS[name](), "run `make schema`"
