"""JSON Schema of hairpin.yaml, for completion in editors: from the same shapes that read it, which come from the flags.

Stricter than the schema is the reader in what it can't say: whether a command's quotes are closed (`format: shell-words`),
and what each flag makes of its value (a match's syntax, a target's kind).
"""

from __future__ import annotations

from hairpin.model.session_shapes import API_VERSION
from hairpin.model.shape import JsonSchema
from local_proxy.commands.run import command
from local_proxy.project.keys import document_shape, flags_of, keys_of


def project_json_schema() -> JsonSchema:
    """The schema of hairpin.yaml."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://{API_VERSION}/hairpin.yaml.json",
        "title": "hairpin.yaml: what `hairpin run` does in this repository",
        **document_shape(keys_of(flags_of(command))).schema(),
    }
