"""The languages whose debuggers we know how to start, and which of them a service is written in.

A command says it best (`node server.js`); where it doesn't (`./start.sh`), the files beside it do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path


class Language(StrEnum):
    """A language."""

    PYTHON = "python"
    NODE = "node"
    GO = "go"
    JAVA = "java"


_PROGRAMS = {
    Language.PYTHON: r"python[\d.]*w?|pypy[\d.]*|uvicorn|gunicorn|hypercorn|daphne|flask|fastapi|pytest|celery|streamlit",
    Language.NODE: r"node|nodejs|npm|npx|yarn|pnpm|nodemon|tsx|ts-node",
    Language.GO: r"go|dlv|air",
    Language.JAVA: r"java|mvnw?|gradlew?",
}
_RUNNERS = (("uv", "run"), ("poetry", "run"), ("pipenv", "run"), ("pdm", "run"), ("hatch", "run"))
_FILES = {
    Language.PYTHON: ("pyproject.toml", "requirements*.txt", "setup.py", "setup.cfg", "Pipfile", "*.py"),
    Language.NODE: ("package.json",),
    Language.GO: ("go.mod", "*.go"),
    Language.JAVA: ("pom.xml", "build.gradle", "build.gradle.kts", "*.java"),
}
_SUFFIX = re.compile(r"\.(exe|cmd|bat)$", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def program_of(command: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The name of the program that a command is about, and the words after it.

    What only finds the program is left out: `uv run`, `poetry run`, `env NAME=value`, `exec`, folders, `.exe`.
    """
    words = tuple(command)
    while words:
        if words[:2] in _RUNNERS:
            words = words[2:]
        elif words[0] in ("env", "exec", "/usr/bin/env") or _ASSIGNMENT.match(words[0]):
            words = words[1:]
        else:
            name = re.split(r"[/\\]", words[0])[-1]
            return _SUFFIX.sub("", name), words[1:]
    return "", ()


def language_of(command: Sequence[str]) -> Language | None:
    """The language of the program that a command starts; None if the command does not tell."""
    name, words = program_of(command)
    for language, pattern in _PROGRAMS.items():
        if re.fullmatch(pattern, name):
            return language
    if name.endswith(".py") or (name in ("sh", "bash") and any(word.endswith(".py") for word in words)):
        return Language.PYTHON
    return None


def languages_of(folder: Path, command: Sequence[str] = ()) -> tuple[Language, ...]:
    """The languages of a service.

    Args:
        folder: where its command is run. Only what lies right in it is looked at: a repository's other services count not.
        command: what starts it; if it tells the language, that is the answer.
    """
    told = language_of(command)
    if told is not None:
        return (told,)
    return tuple(
        language for language, patterns in _FILES.items() if any(any(folder.glob(pattern)) for pattern in patterns)
    )
