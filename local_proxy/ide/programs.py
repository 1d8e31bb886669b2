"""What a command starts, as a debugger must be told: the file or module, its arguments, the interpreter's options. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from local_proxy.ide.languages import Language, language_of, program_of


class Kind(StrEnum):
    """What is started."""

    FILE = "file"
    MODULE = "module"
    """Of Python."""
    PACKAGE = "package"
    """Of Go: a folder."""
    CLASS = "class"
    """Of Java."""
    UNKNOWN = "unknown"
    """The command does not tell: the IDE's user must."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is started."""

    kind: Kind
    what: str = ""
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """The interpreter's own, before the program."""


UNKNOWN = Program(Kind.UNKNOWN)
_PYTHON_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
_NODE_WITH_VALUE = (
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "--env-file",
    "-C",
    "--conditions",
)
_GO_WITH_VALUE = ("-tags", "-ldflags", "-gcflags", "-mod", "-modfile", "-exec", "-p", "-C", "-overlay")
_JAVA_WITH_VALUE = ("-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens")


def program_in(command: Sequence[str], language: Language, scripts: Mapping[str, str] | None = None) -> Program:
    """What a command starts.

    Args:
        command: its words.
        language: whose debugger is meant; a command of another language tells nothing.
        scripts: package.json's, for `npm start`.
    """
    name, words = program_of(command)
    if name and language_of(command) not in (language, None):
        return UNKNOWN
    match language:
        case Language.PYTHON:
            return _python(name, command, words)
        case Language.NODE:
            return _node(name, words, scripts or {})
        case Language.GO:
            return _go(name, words)
        case Language.JAVA:
            return _java(name, words)


def _python(name: str, command: Sequence[str], words: tuple[str, ...]) -> Program:
    if not name:
        return UNKNOWN
    if name.endswith(".py"):
        return Program(Kind.FILE, command[len(command) - len(words) - 1], words)
    if not re.fullmatch(r"python[\d.]*w?|pypy[\d.]*", name):
        # A console script: uvicorn, flask, pytest and their like can all be run as modules.
        return Program(Kind.MODULE, name, words) if language_of(command) is Language.PYTHON else UNKNOWN
    for index, word in enumerate(words):
        if word == "-m" and index + 1 < len(words):
            options = words[:index]
            return Program(Kind.MODULE, words[index + 1], words[index + 2 :], options)
        if word == "-c":
            return UNKNOWN
        if not word.startswith("-") and (index == 0 or words[index - 1] not in _PYTHON_WITH_VALUE):
            return Program(Kind.FILE, word, words[index + 1 :], words[:index])
    return UNKNOWN


def _node(name: str, words: tuple[str, ...], scripts: Mapping[str, str]) -> Program:
    if name in ("npm", "yarn", "pnpm") and words:
        script = words[1] if words[0] in ("run", "run-script") and len(words) > 1 else words[0]
        called = tuple(scripts.get(script, "").split())
        return _node(*_named(called), {}) if not _needs_a_shell(called) else UNKNOWN
    if name not in ("node", "nodejs"):
        return UNKNOWN
    return _first_file(words, _NODE_WITH_VALUE)


def _named(command: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    return program_of(command)


def _needs_a_shell(words: Sequence[str]) -> bool:
    return not words or any(re.search(r"[|&;<>$`'\"*]", word) for word in words)


def _first_file(words: tuple[str, ...], with_value: tuple[str, ...]) -> Program:
    for index, word in enumerate(words):
        if not word.startswith("-") and (index == 0 or words[index - 1] not in with_value):
            return Program(Kind.FILE, word, words[index + 1 :], words[:index])
    return UNKNOWN


def _go(name: str, words: tuple[str, ...]) -> Program:
    if name != "go" or words[:1] != ("run",):
        # ./checkout, or air: the package in the folder where it is run is the likely one.
        return Program(Kind.PACKAGE, ".", words if name not in ("go", "dlv", "air", "") else ())
    found = _first_file(words[1:], _GO_WITH_VALUE)
    if found.kind is Kind.UNKNOWN:
        return found
    arguments = found.arguments
    if found.what.endswith(".go"):  # go run a.go b.go: files of one package
        arguments = tuple(word for word in arguments if not word.endswith(".go"))
        folder = found.what.rpartition("/")[0] or "."
        return Program(Kind.PACKAGE, folder, arguments, found.options)
    return Program(Kind.PACKAGE, found.what, arguments, found.options)


def _java(name: str, words: tuple[str, ...]) -> Program:
    if name != "java" or "-jar" in words or "-m" in words or "--module" in words:
        return UNKNOWN
    found = _first_file(words, _JAVA_WITH_VALUE)
    if found.kind is Kind.UNKNOWN or found.what.endswith((".java", ".jar")):
        return UNKNOWN
    return Program(Kind.CLASS, found.what, found.arguments, _without_class_path(found.options))


def _without_class_path(options: tuple[str, ...]) -> tuple[str, ...]:
    """The IDE knows the class path itself."""
    kept: list[str] = []
    skip = False
    for option in options:
        if skip:
            skip = False
        elif option in ("-cp", "-classpath", "--class-path"):
            skip = True
        else:
            kept.append(option)
    return tuple(kept)
