"""The files of a container's ConfigMap, Secret, projected and downwardAPI volumes, as the pod's spec has them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local_proxy.target.spec import Left, Objects, Reference, expand, pod_field, resource

JsonObject = Mapping[str, Any]
COPIED = ("configMap", "secret", "projected", "downwardAPI")
"""Kinds of volumes whose files we bring."""
_DEFAULT_MODE = 0o644
_KINDS = {"configMap": "ConfigMap", "secret": "Secret"}
_PROJECTIONS = ("configMap", "secret", "downwardAPI", "serviceAccountToken")


@dataclass(frozen=True, slots=True)
class File:
    """A file's content and mode."""

    data: bytes
    mode: int = _DEFAULT_MODE


@dataclass(frozen=True, slots=True)
class Token:
    """A service account's token that a volume has."""

    path: str
    """Of the file in the container."""
    audience: str
    seconds: int
    """How long it lives."""
    mode: int = _DEFAULT_MODE


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted volume, or a part of one."""

    path: str
    """Where, in the container; absolute and without `..`."""
    below: str
    """Which part of the volume; empty: all of it."""
    volume: JsonObject

    @property
    def kind(self) -> str:
        """The kind of the volume, as its spec has it."""
        return next((key for key in self.volume if key != "name"), "emptyDir")


@dataclass(frozen=True, slots=True)
class Files:
    """What a container has mounted."""

    files: dict[str, File] = field(default_factory=dict)
    """By path in the container."""
    tokens: tuple[Token, ...] = ()
    left: tuple[Left, ...] = ()


def mounts(pod: JsonObject, container: JsonObject, variables: Mapping[str, str]) -> list[Mount]:
    """A container's mounts, outer ones first. A path that leads out of the root or out of its volume is none.

    Args:
        pod: the pod.
        container: the container, out of its spec.
        variables: for `subPathExpr`.
    """
    volumes = {volume["name"]: volume for volume in (pod.get("spec") or {}).get("volumes") or []}
    found = []
    for mount in container.get("volumeMounts") or []:
        volume = volumes.get(mount["name"])
        path = posixpath.normpath(posixpath.join("/", mount["mountPath"]))
        below = mount.get("subPath") or expand(mount.get("subPathExpr") or "", variables)
        if volume is not None and path.strip("/") and (not below or is_below(below)):
            found.append(Mount("/" + path.lstrip("/"), posixpath.normpath(below) if below else "", volume))
    return sorted(found, key=lambda mount: mount.path.count("/"))


def is_below(path: str) -> bool:
    """Whether a relative path stays where it begins, and can be a file's."""
    parts = path.split("/")
    return bool(path) and not path.startswith("/") and ".." not in parts and "\0" not in path and any(parts)


def references(mounted: Iterable[Mount]) -> set[Reference]:
    """ConfigMaps and Secrets of mounts."""
    found = set()
    for mount in mounted:
        for kind, source in _sources(mount.volume):
            if kind in _KINDS:
                found.add(Reference(_KINDS[kind], _name(source)))
    return found


def files(pod: JsonObject, container: JsonObject, mounted: Iterable[Mount], objects: Objects) -> Files:
    """The files of mounts.

    Args:
        pod: the pod.
        container: the container, out of its spec.
        mounted: `mounts`.
        objects: ConfigMaps and Secrets.
    """
    found: dict[str, File] = {}
    tokens: dict[str, Token] = {}
    left: list[Left] = []
    for mount in mounted:
        # What is mounted hides what was there.
        for hidden in [path for path in (*found, *tokens) if within(path, mount.path)]:
            found.pop(hidden, None)
            tokens.pop(hidden, None)
        made = _volume(pod, container, mount.volume, objects)
        for inner, file in made.files.items():
            if (path := _placed(mount, inner)) is not None:
                found[path] = file
        for token in made.tokens:
            if (path := _placed(mount, token.path)) is not None:
                tokens[path] = Token(path, token.audience, token.seconds, token.mode)
        left += [Left(f"{what} of {mount.path}", why) for what, why in made.gone]
    return Files(found, tuple(tokens.values()), tuple(left))


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder, or in it."""
    return path == folder or path.startswith(f"{folder}/")


def _placed(mount: Mount, inner: str) -> str | None:
    """Where a volume's file is in the container; None if the mount does not show it."""
    if not is_below(inner):
        return None
    inner = posixpath.normpath(inner)
    if not mount.below:
        return posixpath.join(mount.path, inner)
    if not within(inner, mount.below):
        return None
    return posixpath.normpath(posixpath.join(mount.path, posixpath.relpath(inner, mount.below)))


@dataclass(slots=True)
class _Made:
    """A volume's content, by path in the volume."""

    files: dict[str, File] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)


def _volume(pod: JsonObject, container: JsonObject, volume: JsonObject, objects: Objects) -> _Made:
    made = _Made()
    outer = volume.get("projected") or {}
    for kind, source in _sources(volume):
        mode = int(source.get("defaultMode") or outer.get("defaultMode") or _DEFAULT_MODE)
        if kind in _KINDS:
            _add_keys(made, Reference(_KINDS[kind], _name(source)), source, objects, mode)
        elif kind == "downwardAPI":
            containers = {one["name"]: one for one in (pod.get("spec") or {}).get("containers") or []}
            for item in source.get("items") or []:
                named = containers.get((item.get("resourceFieldRef") or {}).get("containerName"), container)
                _add_field(made, pod, named, item, mode)
        elif kind == "serviceAccountToken":
            seconds = int(source.get("expirationSeconds") or 3600)
            made.tokens.append(Token(source["path"], source.get("audience") or "", seconds, mode))
        else:
            made.gone.append((kind, "hairpin knows no such volume"))
    return made


def _sources(volume: JsonObject) -> list[tuple[str, JsonObject]]:
    if "projected" in volume:
        return [
            next(((kind, source[kind]) for kind in _PROJECTIONS if source.get(kind)), (next(iter(source), "?"), {}))
            for source in volume["projected"].get("sources") or []
        ]
    return [(kind, volume[kind]) for kind in ("configMap", "secret", "downwardAPI") if kind in volume]


def _name(source: JsonObject) -> str:
    return str(source.get("secretName") or source.get("name") or "")


def _add_keys(made: _Made, reference: Reference, source: JsonObject, objects: Objects, mode: int) -> None:
    optional = bool(source.get("optional"))
    if reference in objects.missing:
        if not (optional and reference in objects.absent):
            made.gone.append((str(reference), objects.missing[reference]))
        return
    data = objects.data.get(reference, {})
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    for item in items:
        if item["key"] in data:
            made.files[item["path"]] = File(data[item["key"]], int(item.get("mode") or mode))
        elif not optional:
            made.gone.append((f"{reference}'s {item['key']}", "it is not there any more"))


def _add_field(made: _Made, pod: JsonObject, container: JsonObject, item: JsonObject, mode: int) -> None:
    text, why = None, "hairpin knows no such source"
    if given := item.get("fieldRef"):
        text, why = pod_field(pod, str(given.get("fieldPath", ""))), f"there is no field {given.get('fieldPath')}"
    elif given := item.get("resourceFieldRef"):
        text, why = resource(given, container)
    if text is None:
        made.gone.append((item["path"], why))
    else:
        made.files[posixpath.normpath(item["path"])] = File(text.encode(), int(item.get("mode") or mode))
