"""`hairpin ide explain`: what to set in an IDE that we write no files for."""

from __future__ import annotations

import os
import shlex
import sys

from local_proxy.ide.languages import Language
from local_proxy.ide.launches import Launch, Plan
from local_proxy.project.settle import SERVICE_VARIABLE

_HOW = {
    Language.PYTHON: (
        "the run configuration's interpreter: {root}/.hairpin/bin/python",
        'VS Code: "python" in launch.json; PyCharm: Interpreter, Show All, Add Local, Existing; others: python path',
    ),
    Language.NODE: (
        "the run configuration's Node: {root}/.hairpin/bin/node",
        'VS Code: "runtimeExecutable" in launch.json; WebStorm: Node interpreter, …, Add Local',
    ),
    Language.GO: (
        "Delve: {root}/.hairpin/bin/dlv (and go: {root}/.hairpin/bin/go, for a run without debugger)",
        'VS Code: "go.alternateTools": {{"dlv": …}} in settings.json; Vim, Emacs, Zed: the path of dlv; GoLand: see the end',
    ),
    Language.JAVA: (
        "the run configuration's JRE: {root}/.hairpin/jdk",
        'VS Code: "javaExec": {root}/.hairpin/jdk/bin/java in launch.json; IntelliJ, Eclipse: JRE in the run configuration',
    ),
}
_ANY = (
    "Any other language, and GoLand: have hairpin run the debugger, and the IDE attach to it:",
    "  hairpin run{service} -- DEBUGGER PROGRAM        (dlv debug --headless --listen=127.0.0.1:2345 --accept-multiclient)",
    "  in the IDE: attach to 127.0.0.1, that port. It is not taken for the service's.",
    "A program that the IDE starts by itself, without hairpin: hairpin run{service} --port PORT, in a terminal.",
)


def explain(plan: Plan) -> int:
    """Write the shims, which all of it needs, and say what to do with them."""
    from local_proxy.ide.write import prepare_shims  # noqa: PLC0415

    prepare_shims(plan)
    for line in explanation(plan):
        sys.stdout.write(line + "\n")
    return 0


def explanation(plan: Plan) -> list[str]:
    """The lines."""
    lines = []
    for launch in plan.launches:
        what, where = _HOW[launch.language]
        lines += [launch.name, f"  {what.format(root=plan.root)}", f"    {where.format(root=plan.root)}"]
        folder = os.path.normpath(plan.root / launch.folder)
        lines.append(f"  working folder: {folder}")
        if launch.service is not None:
            lines.append(f"  environment: {SERVICE_VARIABLE}={shlex.quote(launch.service)}")
    return [*lines, *(line.format(service=_service(plan.launches)) for line in _ANY)]


def _service(launches: tuple[Launch, ...]) -> str:
    names = {launch.service for launch in launches}
    return "" if names == {None} else f" {next(iter(names))}" if len(names) == 1 else " SERVICE"
