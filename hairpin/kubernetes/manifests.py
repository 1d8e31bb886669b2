"""The folder manifests/: Kustomize's base and overlays and the Helm chart, all from `objects`. `make manifests` writes it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hairpin.kubernetes.chart import chart_files
from hairpin.kubernetes.installation import Installation, Published
from hairpin.kubernetes.objects import installation_objects
from hairpin.kubernetes.yaml_text import one_yaml_text, yaml_text

JsonObject = dict[str, Any]

NAMESPACE = "shop"
"""The served namespace of the base: an example; `hairpin install --dry-run` and the chart take any."""
BASE = Installation(namespaces=(NAMESPACE,))
OVERLAYS = {
    "published-address": replace(BASE, published=Published("{pod}.agents.example.com")),
    "single-replica": replace(BASE, agents=1, controllers=1),
    "identity": replace(BASE, identities=("checkout",)),
}
"""Each shows one choice; theirs differ from the base by patches and added objects."""

_FILES = {
    "CustomResourceDefinition": "definitions.yaml",
    "ValidatingAdmissionPolicy": "admission.yaml",
    "ValidatingAdmissionPolicyBinding": "admission.yaml",
    "ClusterRole": "roles.yaml",
    "ClusterRoleBinding": "roles.yaml",
}
_GENERATED = "# Written by `make manifests`, from hairpin/kubernetes: change it there.\n"


def manifest_files() -> dict[str, str]:
    """Every file of the folder, by path."""
    files = {f"base/{name}": text for name, text in _base().items()}
    for name, installation in OVERLAYS.items():
        files |= {f"overlays/{name}/{file}": text for file, text in _overlay(installation).items()}
    files |= {f"chart/{name}": text for name, text in chart_files().items()}
    return {name: _GENERATED + text for name, text in files.items()}


def _base() -> dict[str, str]:
    found: dict[str, list[JsonObject]] = {}
    for document in installation_objects(BASE):
        namespace = document["metadata"].get("namespace")
        other = f"namespace-{NAMESPACE}.yaml" if namespace == NAMESPACE else "controller.yaml"
        found.setdefault(_FILES.get(document["kind"], other), []).append(document)
    files = {name: yaml_text(documents) for name, documents in found.items()}
    return {"kustomization.yaml": _kustomization(resources=list(files)), **files}


def _overlay(installation: Installation) -> dict[str, str]:
    base = {_key(document): document for document in installation_objects(BASE)}
    patches, added = [], []
    for document in installation_objects(installation):
        before = base.get(_key(document))
        if before is None:
            added.append(document)
        elif before != document:
            named = {name: document["metadata"][name] for name in ("name", "namespace") if name in document["metadata"]}
            same = {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": named}
            patches.append({**same, **_difference(before, document)})
    files = {}
    if patches:
        files["patches.yaml"] = yaml_text(patches)
    if added:
        files["more.yaml"] = yaml_text(added)
    resources = ["../../base", *(["more.yaml"] if added else [])]
    kustomization = _kustomization(resources=resources, patches=[{"path": "patches.yaml"}] if patches else [])
    return {"kustomization.yaml": kustomization, **files}


def _difference(before: JsonObject, after: JsonObject) -> JsonObject:
    """What a strategic merge changes; lists are given whole."""
    changed: JsonObject = {}
    for name in after:
        if before.get(name) != after[name]:
            both = isinstance(before.get(name), dict) and isinstance(after[name], dict)
            changed[name] = _difference(before[name], after[name]) if both else after[name]
    return changed


def _kustomization(**fields: Any) -> str:
    return one_yaml_text(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            **{name: value for name, value in fields.items() if value},
        }
    )


def _key(document: JsonObject) -> tuple[str, str, str]:
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]


def write(folder: Path) -> None:
    """Write the folder anew; a file of it that is no longer among them goes."""
    files = manifest_files()
    for path in sorted(folder.glob("*/**/*.yaml")):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
