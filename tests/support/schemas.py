"""The JSON Schemas in docs/, by their names. `python -m tests.support.schemas` writes them anew."""

from __future__ import annotations

import json
from pathlib import Path

from hairpin.model.schema import match_json_schema, session_json_schema
from local_proxy.project.schema import project_json_schema

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = {"match": match_json_schema, "session": session_json_schema, "hairpin": project_json_schema}


def main() -> None:
    for name, schema in SCHEMAS.items():
        (DOCS / f"{name}.schema.json").write_text(json.dumps(schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()
