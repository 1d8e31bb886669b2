"""`hairpin ide`: writes what an IDE reads, and says what to do next."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from hairpin.errors import HairpinError, InvalidFieldError
from local_proxy.ide.files import read_text, write_text
from local_proxy.ide.jsonc import JsoncError
from local_proxy.ide.languages import Language
from local_proxy.ide.launches import Plan
from local_proxy.ide.programs import Kind


def write_vscode(plan: Plan) -> int:
    """Write .vscode/launch.json, .vscode/settings.json if need be, and the shims.

    Raises:
        HairpinError: a file can't be read, or has what ours would overwrite; then nothing is written.
    """
    from local_proxy.ide.vscode import launch_json, settings_json  # noqa: PLC0415

    folder = plan.root / ".vscode"
    settings = _edited(folder / "settings.json", lambda text: settings_json(text, plan.launches))
    launch = _edited(folder / "launch.json", lambda text: launch_json(text, plan.launches))
    texts = {folder / "launch.json": launch, folder / "settings.json": settings}
    _write(plan, {path: text for path, text in texts.items() if text is not None})
    _say_next(
        plan, "Open this folder in VS Code, set a breakpoint, choose one of these in Run and Debug, and press F5:"
    )
    return 0


def write_intellij(plan: Plan) -> int:
    """Write .run/*.run.xml and the shims.

    Raises:
        HairpinError: a file can't be read, or is not ours; then nothing is written.
    """
    from local_proxy.ide.intellij import RunConfiguration, run_configurations, run_xml  # noqa: PLC0415

    def edit(wanted: RunConfiguration) -> Callable[[str | None], str]:
        return lambda text: run_xml(text, wanted)

    texts = {}
    for launch in plan.launches:
        for wanted in run_configurations(launch):
            path = plan.root / ".run" / wanted.file
            texts[path] = _edited(path, edit(wanted)) or ""
    _write(plan, texts)
    _say_next(
        plan, "Open this folder in the IDE, set a breakpoint, choose one of these beside the bug, and click the bug:"
    )
    if any(launch.language is Language.GO for launch in plan.launches):
        _say(
            "Go: GoLand debugs with its own Delve: run `… 1 start`, and when Delve says that it listens, debug `… 2 debug`"
        )
    return 0


def _edited(path: Path, edit: Callable[[str | None], str | None]) -> str | None:
    try:
        return edit(read_text(path))
    except JsoncError as error:
        raise InvalidFieldError(
            f"{shown(path)}:{error.line}:{error.column}", None, error.problem, "mend it; nothing was written"
        ) from None
    except HairpinError as error:
        message = str(error)
        raise type(error)(message if str(path) in message else f"{shown(path)}: {message}") from None


def prepare_shims(plan: Plan) -> None:
    """Write the interpreters that the IDE starts.

    Raises:
        NotFoundError: a real one is not on this machine.
    """
    from local_proxy.ide.shims import write_shims  # noqa: PLC0415

    languages = list(dict.fromkeys(launch.language for launch in plan.launches))
    write_shims(plan.root, languages, service=None)


def _write(plan: Plan, texts: dict[Path, str]) -> None:
    prepare_shims(plan)
    for path, text in texts.items():
        existed = path.exists()
        changed = write_text(path, text)
        _say(f"{shown(path)}: {('updated' if existed else 'written') if changed else 'as it was'}")


def _say_next(plan: Plan, what: str) -> None:
    _say(what)
    for launch in plan.launches:
        _say(f"  {launch.name}")
    for launch in plan.launches:
        if launch.program.kind is Kind.UNKNOWN:
            _say(
                f"hairpin.yaml's command does not tell which {launch.language} program {launch.name} starts: "
                "it starts the open file; name it in the configuration, once: it is kept"
            )


def shown(path: Path) -> str:
    """A path as it is shown: from here, if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
