"""What an IDE can start, from hairpin.yaml: one launch for each service and language."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.suggest import closest
from local_proxy.ide.languages import Language, languages_of
from local_proxy.ide.programs import Program, program_in
from local_proxy.project.file import NAME, Project, Section, filled_in, find_project, read_project
from local_proxy.project.keys import COMMAND, FOLDER, flags_of, keys_of


@dataclass(frozen=True, slots=True)
class Launch:
    """A program that an IDE starts, in a session of its service."""

    service: str | None
    """Its name in hairpin.yaml; None if the file has no services."""
    title: str
    """The service's name, or the folder's."""
    language: Language
    folder: str
    """Where it is run, from the folder of hairpin.yaml: `.` is that one."""
    program: Program

    @property
    def name(self) -> str:
        """What the IDE shows, and what makes a configuration ours."""
        return f"hairpin: {self.title} ({self.language})"


@dataclass(frozen=True, slots=True)
class Plan:
    """All launches of a repository."""

    root: Path
    """The folder of hairpin.yaml, which the IDE has open."""
    launches: tuple[Launch, ...]


def plan(
    start: Path, file: str | None, service: str | None, languages: Sequence[Language], environ: Mapping[str, str]
) -> Plan:
    """What is to be written.

    Args:
        start: the folder from which hairpin.yaml is looked for, upwards.
        file: the flag `--file`.
        service: one service alone; None for all.
        languages: these alone; empty for those of each service.
        environ: for variables in the file.

    Raises:
        NotFoundError: there is no hairpin.yaml, no such service, or nothing to start.
        InvalidFieldError: the file is wrong.
    """
    from local_proxy.commands.run import command as run  # noqa: PLC0415 # a command's module: light, but not needed before

    path = find_project(start) if file is None else Path(file)
    if path is None:
        raise NotFoundError(
            f"no {NAME} here or above: an IDE's configuration has no flags, so write one: "
            "target: SERVICE, env: NAME, command: [python, app.py] (docs/settings.md)"
        )
    path = path / NAME if path.is_dir() else path
    project = read_project(path, keys_of(flags_of(run)))
    launches: list[Launch] = []
    for name, section in _chosen(project, service).items():
        launches += _launches(project, name, section, languages, environ)
    if not launches:
        known = "|".join(Language)
        raise NotFoundError(
            f"{project.shown}: neither the commands nor the files in their folders tell a language; "
            f"name it: --language {known}"
        )
    return Plan(project.path.parent, tuple(launches))


def _chosen(project: Project, service: str | None) -> dict[str | None, Section]:
    if service is None:
        named: dict[str | None, Section] = {name: section for name, section in project.services.items()}  # noqa: C416
        return named or {None: project.common}
    if service not in project.services:
        known = ", ".join(project.services) or "no services"
        guess = closest(service, project.services)
        raise NotFoundError(
            f"{service!r} is no service of {project.shown}; "
            + (f"did you mean {guess}?" if guess else f"it has {known}")
        )
    return {service: project.services[service]}


def _launches(
    project: Project, name: str | None, section: Section, languages: Sequence[Language], environ: Mapping[str, str]
) -> list[Launch]:
    root = project.path.parent
    command = section.values.get(COMMAND) or project.common.values.get(COMMAND) or ()
    folder = filled_in(
        section.values.get(FOLDER) or project.common.values.get(FOLDER) or ".", environ, project.at(FOLDER)
    )
    if not (root / folder).is_dir():
        raise InvalidFieldError(project.at(FOLDER), folder, "is no folder", f"write one that is in {root}")
    found = languages or languages_of(root / folder, command)
    shown = PurePosixPath(Path(os.path.relpath(root / folder, root)).as_posix())
    scripts = _scripts(root / folder) if Language.NODE in found else {}
    return [
        Launch(name, name or root.name, language, str(shown), program_in(command, language, scripts))
        for language in dict.fromkeys(found)
    ]


def _scripts(folder: Path) -> dict[str, str]:
    """package.json's scripts; what can't be read tells nothing."""
    try:
        package: Any = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        return {str(name): str(script) for name, script in dict(package.get("scripts", {})).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def languages_named(words: Sequence[str]) -> tuple[Language, ...]:
    """The languages that a flag names.

    Raises:
        InvalidFieldError: there is no such language.
    """
    found = []
    for word in words:
        for name in word.split(","):
            try:
                found.append(Language(name))
            except ValueError:
                guess = closest(name, list(Language))
                remedy = f"did you mean {guess}?" if guess else f"choose of {', '.join(Language)}"
                raise InvalidFieldError("--language", name, "is none that we know", remedy) from None
    return tuple(found)
