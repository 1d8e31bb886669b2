"""Shims: stand-ins for an interpreter, a debugger or a JDK that an IDE is pointed at, in a repository's `.hairpin/`.

A shim is a few lines of shell that say where the real program is, as it was found when the shim was written. What it does
with a call is `shim.py`'s business. If hairpin is gone, it says so and becomes the real program.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from hairpin.errors import NotFoundError
from hairpin.files import replace_file
from local_proxy.ide import shim
from local_proxy.ide.languages import Language

FOLDER = ".hairpin"
"""Beside hairpin.yaml; git ignores it, since it has this machine's paths."""
BIN = f"{FOLDER}/bin"
JDK = f"{FOLDER}/jdk"
_MODE = 0o755


def write_shims(
    folder: Path, languages: Iterable[Language], *, service: str | None, environ: Mapping[str, str] | None = None
) -> list[Path]:
    """Write the shims of some languages, or bring them up to date.

    Args:
        folder: the repository's, where hairpin.yaml is.
        languages: whose.
        service: which of hairpin.yaml's services they run, unless HAIRPIN_SERVICE says another.
        environ: to find the real programs by: PATH, JAVA_HOME, GOBIN, GOPATH.

    Returns:
        The shims, and the JDK's home.

    Raises:
        NotFoundError: a real program is not on this machine.
    """
    environ = os.environ if environ is None else environ
    folder = folder.absolute()
    wanted = list(dict.fromkeys(languages))
    programs = {name: found for language in wanted for name, found in _programs(language, folder, environ).items()}
    jdk = _jdk_home(folder, environ) if Language.JAVA in wanted else None
    # All that can be missing has been looked for by now.
    (folder / FOLDER).mkdir(exist_ok=True)
    _write(folder / FOLDER / ".gitignore", "*\n")
    written = []
    for name, (kind, program) in programs.items():
        path = folder / BIN / name
        _write(path, shim_text(kind, program, folder, service), executable=True)
        written.append(path)
    if jdk is not None:
        _mirror_jdk(folder / JDK, jdk, shim_text("java", jdk / "bin" / "java", folder, service))
        written.append(folder / JDK)
    return written


def shim_text(kind: str, program: Path, folder: Path, service: str | None, python: str = sys.executable) -> str:
    """A shim: runs by any POSIX shell."""
    module = shlex.quote(shim.__file__)
    real = shlex.quote(str(program))
    words = " ".join(map(shlex.quote, (kind, str(program), str(folder), service or "")))
    interpreter = shlex.quote(python)
    gone = shlex.quote(f"hairpin is gone ({python}), so {program.name} runs without the mesh; write the shims anew")
    return (
        "#!/bin/sh\n"
        f"# Written by `hairpin ide`: stands for {' '.join(str(program).split())}, and runs the program in the mesh.\n"
        f"if [ -x {interpreter} ] && [ -f {module} ]; then\n"
        f'  exec {interpreter} -I -S {module} {words} "$@"\n'
        "fi\n"
        f"echo {gone} >&2\n"
        f'exec {real} "$@"\n'
    )


def _programs(language: Language, folder: Path, environ: Mapping[str, str]) -> dict[str, tuple[str, Path]]:
    """The shims of a language, by name: their kind, and the real program."""
    match language:
        case Language.PYTHON:
            python = _python(folder, environ)
            return {"python": ("python", python), "python3": ("python", python)}
        case Language.NODE:
            return {"node": ("node", _found(folder, environ, "node", "install Node.js, or put it in PATH"))}
        case Language.GO:
            remedy = "go install github.com/go-delve/delve/cmd/dlv@latest"
            return {
                "go": ("go", _found(folder, environ, "go", "install Go, or put it in PATH")),
                "dlv": ("dlv", _found(folder, environ, "dlv", remedy, _go_folders(environ))),
            }
        case Language.JAVA:
            return {}


def _python(folder: Path, environ: Mapping[str, str]) -> Path:
    """The project's own interpreter before that of PATH: an IDE is often started outside of the environment."""
    for place in (folder / ".venv", folder / "venv"):
        if _is_program(place / "bin" / "python"):
            return place / "bin" / "python"
    remedy = "install Python, or make a virtual environment in .venv"
    for name in ("python3", "python"):
        if found := _which(folder, environ, name):
            return found
    raise NotFoundError(f"python3: not found in PATH; {remedy}")


def _found(folder: Path, environ: Mapping[str, str], name: str, remedy: str, more: Iterable[Path] = ()) -> Path:
    found = _which(folder, environ, name) or next((place / name for place in more if _is_program(place / name)), None)
    if found is None:
        raise NotFoundError(f"{name}: not found in PATH; {remedy}")
    return found


def _which(folder: Path, environ: Mapping[str, str], name: str) -> Path | None:
    own = folder / FOLDER
    places = [place for place in environ.get("PATH", os.defpath).split(os.pathsep) if place]
    elsewhere = [place for place in places if not Path(place).absolute().is_relative_to(own)]
    found = shutil.which(name, path=os.pathsep.join(elsewhere))
    return Path(found).absolute() if found else None


def _go_folders(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where `go install` puts programs."""
    if environ.get("GOBIN"):
        yield Path(environ["GOBIN"])
    paths = environ.get("GOPATH") or str(Path(environ.get("HOME") or Path.home()) / "go")
    yield from (Path(path) / "bin" for path in paths.split(os.pathsep))


def _jdk_home(folder: Path, environ: Mapping[str, str]) -> Path:
    own = (folder / JDK).resolve()
    if home := environ.get("JAVA_HOME"):
        path = Path(home).absolute()
        if path.resolve() != own and _is_program(path / "bin" / "java"):
            return path
    java = _found(folder, environ, "java", "install a JDK and put it in PATH, or set JAVA_HOME")
    home_of = java.resolve().parent.parent
    if not (home_of / "release").is_file():
        raise NotFoundError(f"{java}: belongs to no JDK that can be found; set JAVA_HOME to one's home")
    return home_of


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _mirror_jdk(copy: Path, jdk: Path, java: str) -> None:
    """A JDK's home whose parts are links to those of the real one, but for `bin/java`."""
    (copy / "bin").mkdir(parents=True, exist_ok=True)
    _mirror(copy, jdk, lambda name: name == "bin")
    _mirror(copy / "bin", jdk / "bin", lambda name: name == "java")
    _write(copy / "bin" / "java", java, executable=True)


def _mirror(copy: Path, real: Path, ours: Callable[[str], bool]) -> None:
    names = {entry.name for entry in real.iterdir()}
    for entry in copy.iterdir():
        if entry.name not in names and not ours(entry.name):
            entry.unlink()
    for name in names:
        link = copy / name
        if ours(name) or (link.is_symlink() and link.readlink() == real / name):
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(real / name)


def _write(path: Path, text: str, *, executable: bool = False) -> None:
    """Write a file in one step, unless it is so already: an IDE may be about to execute it."""
    if path.is_file() and not path.is_symlink() and path.read_text(errors="replace") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode(), mode=_MODE if executable else 0o644)
