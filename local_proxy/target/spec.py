"""A container's environment as its pod's spec has it, as a kubelet makes it (pkg/kubelet/kubelet_pods.go)."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local_proxy.target.quantities import resource_text

JsonObject = Mapping[str, Any]
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_FIELD = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_FROM = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
_KEY_FROM = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}


@dataclass(frozen=True, slots=True)
class Reference:
    """A ConfigMap or a Secret of the pod's namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        """As it is told: `Secret db`."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Objects:
    """What was read of a pod's ConfigMaps and Secrets."""

    data: Mapping[Reference, Mapping[str, bytes]] = field(default_factory=dict)
    missing: Mapping[Reference, str] = field(default_factory=dict)
    """Why there is no data: it may not be read, or it is not there."""
    absent: frozenset[Reference] = frozenset()
    """Those of `missing` that don't exist, which does no harm where they are optional."""


@dataclass(frozen=True, slots=True)
class Left:
    """Something that could not be had."""

    what: str
    """`variable DB_PASSWORD`, `file /etc/app/tls.key`."""
    why: str

    def __str__(self) -> str:
        """As it is told."""
        return f"{self.what} ({self.why})"


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` where NAME is known; `$$` is a dollar sign."""

    def replaced(found: re.Match[str]) -> str:
        return "$" if found[1] is None else values.get(found[1], found[0])

    return _REFERENCE.sub(replaced, text)


def references(container: JsonObject) -> set[Reference]:
    """What a container's environment is made from."""
    found = set()
    for source in container.get("envFrom") or []:
        found |= {Reference(kind, source[key]["name"]) for key, kind in _FROM.items() if source.get(key)}
    for variable in container.get("env") or []:
        source = variable.get("valueFrom") or {}
        found |= {Reference(kind, source[key]["name"]) for key, kind in _KEY_FROM.items() if source.get(key)}
    return found


def object_data(document: JsonObject) -> dict[str, bytes]:
    """A ConfigMap's or a Secret's content."""
    text = document.get("data") or {}
    if document.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in text.items()}
    binary = document.get("binaryData") or {}
    return {
        **{key: value.encode() for key, value in text.items()},
        **{key: base64.b64decode(value) for key, value in binary.items()},
    }


def environment(
    pod: JsonObject, container: JsonObject, objects: Objects, links: Mapping[str, str]
) -> tuple[dict[str, str], list[Left]]:
    """The variables, and what could not be had. The image's own are not among them: the API server doesn't know them.

    Args:
        pod: the pod.
        container: the container, out of its spec.
        objects: ConfigMaps and Secrets.
        links: the Services' variables.
    """
    own: dict[str, str] = {}
    left: list[Left] = []
    for source in container.get("envFrom") or []:
        _set_from(source, objects, own, left)
    for variable in container.get("env") or []:
        name, source = variable["name"], variable.get("valueFrom")
        if source:
            value, why = _value_from(source, pod, container, objects)
            if why:
                left.append(Left(f"variable {name}", why))
            if value is None:
                continue
        else:
            value = expand(str(variable.get("value") or ""), {**links, **own})
        own[name] = value
    return {name: value for name, value in {**links, **own}.items() if _usable(name, value)}, left


def _usable(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name and "\0" not in value


def _set_from(source: JsonObject, objects: Objects, own: dict[str, str], left: list[Left]) -> None:
    for key, kind in _FROM.items():
        given = source.get(key)
        if not given:
            continue
        reference = Reference(kind, given["name"])
        if reference in objects.missing and not (given.get("optional") and reference in objects.absent):
            left.append(Left(f"the variables of {reference}", objects.missing[reference]))
        for name, value in sorted(objects.data.get(reference, {}).items()):
            # surrogateescape: bytes that are no UTF-8 stay what they are.
            own[f"{source.get('prefix') or ''}{name}"] = os.fsdecode(value)


def _value_from(source: JsonObject, pod: JsonObject, container: JsonObject, objects: Objects) -> tuple[str | None, str]:
    """A value, None where there is none, and why not."""
    for key, kind in _KEY_FROM.items():
        if given := source.get(key):
            reference = Reference(kind, given["name"])
            if reference in objects.missing:
                optional = given.get("optional") and reference in objects.absent
                return None, "" if optional else f"{reference}: {objects.missing[reference]}"
            value = objects.data.get(reference, {}).get(given["key"])
            if value is None:
                return None, "" if given.get("optional") else f"{reference} has no {given['key']}"
            return os.fsdecode(value), ""
    if given := source.get("fieldRef"):
        value_text = pod_field(pod, str(given.get("fieldPath", "")))
        return value_text, "" if value_text is not None else f"there is no field {given.get('fieldPath')}"
    if given := source.get("resourceFieldRef"):
        return resource(given, container)
    return None, f"hairpin knows no {next(iter(source), 'source')}"


def resource(given: JsonObject, container: JsonObject) -> tuple[str | None, str]:
    """A `resourceFieldRef`'s value, or why there is none."""
    try:
        text = resource_text(given, container)
    except ValueError as error:
        return None, str(error)
    return text, "" if text is not None else f"{given.get('resource')} is not set: the node's size, which only it knows"


def pod_field(pod: JsonObject, path: str) -> str | None:
    """What a `fieldRef` says; None where there is no such field."""
    metadata, spec, status = pod.get("metadata") or {}, pod.get("spec") or {}, pod.get("status") or {}
    if found := _FIELD.fullmatch(path):
        return str((metadata.get(found[1]) or {}).get(found[2], ""))
    plain = {
        "metadata.name": metadata.get("name", ""),
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata.get("uid", ""),
        "metadata.labels": _lines(metadata.get("labels") or {}),
        "metadata.annotations": _lines(metadata.get("annotations") or {}),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": _addresses(status.get("hostIPs")) or status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": _addresses(status.get("podIPs")) or status.get("podIP", ""),
    }
    return plain.get(path)


def _lines(values: Mapping[str, str]) -> str:
    # Go's %q; JSON's quoting differs from it in control characters alone.
    return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(values.items()))


def _addresses(listed: Iterable[Mapping[str, str]] | None) -> str:
    return ",".join(entry["ip"] for entry in listed or [])
