"""VS Code's launch.json and settings.json, with our configurations in them. Pure: texts in, texts out.

A configuration is ours by its name. In it we set what starts the program in a session; what a user adds beside
(`justMyCode`, `preLaunchTask`, more variables in `env`) stays.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hairpin.errors import ConflictError
from local_proxy.ide import jsonc_edit
from local_proxy.ide.jsonc import parse
from local_proxy.ide.languages import Language
from local_proxy.ide.launches import Launch
from local_proxy.ide.programs import Kind
from local_proxy.project.settle import SERVICE_VARIABLE

_ROOT = "${workspaceFolder}"
_SHIMS = f"{_ROOT}/.hairpin"
_NEW_LAUNCH = '{\n    "version": "0.2.0",\n    "configurations": []\n}\n'
_NEW_SETTINGS = "{}\n"
_ORDER = (
    "type",
    "request",
    "mode",
    "python",
    "runtimeExecutable",
    "javaExec",
    "module",
    "mainClass",
    "program",
    "args",
    "cwd",
)
_ONE_OF = ("module", "mainClass", "program")
"""What is started: a command that has become a module has no `program` any more."""
_GO_TOOLS = ("go.alternateTools",)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One of launch.json."""

    name: str
    ours: dict[str, Any]
    """Set at each run."""
    first: dict[str, Any]
    """Set once: what a user may well change."""
    environment: dict[str, str]


def configuration(launch: Launch) -> Configuration:
    """How VS Code starts a program under its language's debugger, through the shim."""
    program = launch.program
    here = _inside(launch.folder)
    ours: dict[str, Any] = {"request": "launch", "cwd": here}
    first: dict[str, Any] = {"console": "integratedTerminal"}
    what: dict[str, Any] = {"program": "${file}"}
    if program.kind is Kind.FILE:
        what = {"program": _inside(launch.folder, program.what)}
    match launch.language:
        case Language.PYTHON:
            ours |= {"type": "debugpy", "python": f"{_SHIMS}/bin/python"}
            what = {"module": program.what} if program.kind is Kind.MODULE else what
            options = {"pythonArgs": program.options}
        case Language.NODE:
            ours |= {"type": "node", "runtimeExecutable": f"{_SHIMS}/bin/node"}
            options = {"runtimeArgs": program.options}
        case Language.GO:
            ours |= {"type": "go", "mode": "debug"}
            what = {"program": _inside(launch.folder, program.what) if program.kind is Kind.PACKAGE else here}
            options = {"buildFlags": program.options}
        case Language.JAVA:
            ours |= {"type": "java", "javaExec": f"{_SHIMS}/jdk/bin/java"}
            # The Java extension takes a class, not a file; ${file} is the class in the editor.
            what = {"mainClass": program.what if program.kind is Kind.CLASS else "${file}"}
            options = {"vmArgs": program.options}
    if program.kind is Kind.UNKNOWN:  # a guess that the user is to put right once, not at each run
        first |= what
    else:
        ours |= what | {"args": list(program.arguments)} | {key: list(value) for key, value in options.items() if value}
    return Configuration(
        launch.name, ours, first, {SERVICE_VARIABLE: launch.service} if launch.service is not None else {}
    )


def _inside(folder: str, path: str = "") -> str:
    if posixpath.isabs(path):
        return path
    inner = posixpath.normpath(posixpath.join(folder, path))
    return inner if posixpath.isabs(inner) else _ROOT if inner == "." else f"{_ROOT}/{inner}"


def launch_json(text: str | None, launches: Iterable[Launch]) -> str:
    """launch.json with our configurations.

    Args:
        text: as it is; None if there is none.
        launches: what they start.

    Raises:
        JsoncError: the text can't be read.
    """
    text = _NEW_LAUNCH if text is None or not text.strip("\ufeff \t\r\n") else text
    for launch in launches:
        text = _with_configuration(text, configuration(launch))
    return text


def _with_configuration(text: str, wanted: Configuration) -> str:
    if jsonc_edit.find(parse(text), ("configurations",)) is None:
        text = jsonc_edit.set_value(text, ("configurations",), [])
    found = jsonc_edit.find(parse(text), ("configurations",))
    items = found.value if found and isinstance(found.value, list) else []
    index = next(
        (at for at, item in enumerate(items) if isinstance(item, dict) and item.get("name") == wanted.name), None
    )
    if index is None:
        environment = {"env": wanted.environment} if wanted.environment else {}
        return jsonc_edit.append(
            text, ("configurations",), {"name": wanted.name, **_sorted(wanted.ours | wanted.first), **environment}
        )
    place: jsonc_edit.Path = ("configurations", index)
    for key, value in wanted.ours.items():
        text = jsonc_edit.set_value(text, (*place, key), value)
    for key in _ONE_OF:
        if key not in wanted.ours and not wanted.ours.keys().isdisjoint(_ONE_OF):
            text = jsonc_edit.remove(text, (*place, key))
    if wanted.environment and not isinstance(items[index].get("env"), dict):
        return jsonc_edit.set_value(text, (*place, "env"), wanted.environment)
    for key, value in wanted.environment.items():
        text = jsonc_edit.set_value(text, (*place, "env", key), value)
    return text


def _sorted(configuration: dict[str, Any]) -> dict[str, Any]:
    order = {key: index for index, key in enumerate(_ORDER)}
    return dict(sorted(configuration.items(), key=lambda item: order.get(item[0], len(order))))


def settings_json(text: str | None, launches: Iterable[Launch]) -> str | None:
    """settings.json with what launch.json can't say; None if nothing is to be written.

    The Go extension finds Delve by the setting `go.alternateTools`, and puts that in place of a configuration's `dlvToolPath`
    (golang/vscode-go, extension/src/goDebugConfiguration.ts).

    Raises:
        JsoncError: the text can't be read.
        ConflictError: the setting names another Delve.
    """
    if not any(launch.language is Language.GO for launch in launches):
        return None
    shim = f"{_SHIMS}/bin/dlv"
    text = _NEW_SETTINGS if text is None or not text.strip("\ufeff \t\r\n") else text
    tools = jsonc_edit.find(parse(text), _GO_TOOLS)
    if tools is None:
        return jsonc_edit.set_value(text, _GO_TOOLS, {"dlv": shim})
    named = tools.value.get("dlv") if isinstance(tools.value, dict) else None
    if named not in (None, "", "dlv", shim):
        raise ConflictError(
            f'"go.alternateTools" has "dlv": "{named}": to debug in a session put "{shim}" there '
            "(it runs the dlv of your PATH), or take the line out and start again"
        )
    return jsonc_edit.set_value(text, (*_GO_TOOLS, "dlv"), shim)
