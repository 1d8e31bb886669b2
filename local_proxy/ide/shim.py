"""What a shim executes: `python -I -S shim.py KIND PROGRAM FOLDER SERVICE ARGUMENTS…`, by hairpin's own interpreter.

It becomes the real program, or `hairpin run … -- PROGRAM ARGUMENTS…`: the same process, so that signals, the terminal,
descriptors and the exit code are the program's. It imports what is built in and a pure module: an IDE calls it often.
"""

from __future__ import annotations

import os
import sys

SESSION = "HAIRPIN_SESSION"
CHOICE = "HAIRPIN_SHIM"
"""`run` or `pass`: what the user says against our own judgement."""
SERVICE = "HAIRPIN_SERVICE"
PROJECT = "hairpin.yaml"
_NOT_FOUND, _CANNOT = 127, 126

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn


def main() -> None:
    """Become the one or the other."""
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120
    from local_proxy.ide.wrapping import runs_program  # noqa: PLC0415

    kind, program, folder, service, *arguments = sys.argv[1:]
    environ = dict(os.environ)
    project = project_file(_here() or folder, folder)
    choice = environ.get(CHOICE, "")
    wanted = choice == "run" or (choice != "pass" and runs_program(kind, arguments, _read))
    if SESSION in environ or not wanted:
        _become(program, [program, *arguments], environ)
    if not project:
        _say(f"there is no {PROJECT} here or above, so {os.path.basename(program)} runs without the mesh")  # noqa: PTH119
        _become(program, [program, *arguments], environ)
    _become(sys.executable, hairpin_command(sys.executable, project, [program, *arguments]), settled(environ, service))


def hairpin_command(python: str, project: str, command: Sequence[str]) -> list[str]:
    """`hairpin run` of a command. The variables for Python that the IDE sets are the program's, not hairpin's."""
    return [python, "-E", "-P", "-m", "hairpin", "run", "--file", project, "--", *command]


def settled(environ: Mapping[str, str], service: str) -> dict[str, str]:
    """The environment, with the service that the shim was written for, unless it names one."""
    return {**({SERVICE: service} if service else {}), **environ}


def project_file(here: str, folder: str) -> str:
    """The nearest hairpin.yaml of a folder and those above it; else that of the folder that has the shim; else nothing."""
    while True:
        found = os.path.join(here, PROJECT)  # noqa: PTH118
        if os.path.isfile(found):  # noqa: PTH113
            return found
        above = os.path.dirname(here)  # noqa: PTH120
        if above == here:
            break
        here = above
    found = os.path.join(folder, PROJECT)  # noqa: PTH118
    return found if os.path.isfile(found) else ""  # noqa: PTH113


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it has been removed
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


def _become(program: str, command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    import _signal  # type: ignore[import-not-found] # noqa: PLC0415 - the module signal builds enums

    for ignored_by_python in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(ignored_by_python, _signal.SIG_DFL)
    try:
        os.execve(program, list(command), environ)  # noqa: S606 - no shell is wanted
    except OSError as error:
        _say(f"{program} can't be run: {error.strerror}; write the shims anew with hairpin ide")
        os._exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT)


def _say(text: str) -> None:
    os.write(2, f"hairpin {text}\n".encode(errors="replace"))


if __name__ == "__main__":
    main()
