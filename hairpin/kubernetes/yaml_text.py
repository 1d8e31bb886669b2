"""Objects as YAML that people read: fields in the order in which they were written, texts of several lines as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

JsonObject = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def yaml_text(objects: Iterable[JsonObject]) -> str:
    """Documents, one after the other."""
    return "".join("---\n" + one_yaml_text(document) for document in objects)


def one_yaml_text(document: Any) -> str:
    """One document."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
