"""`hairpin run`'s command line and hairpin.yaml, made one: what is typed wins, then the service's keys, then those of all."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.suggest import closest
from local_proxy.project.file import NAME, Project, Section, filled_in, find_project, read_project
from local_proxy.project.keys import COMMAND, FOLDER, Key, flags_of, keys_of

SERVICE_VARIABLE = "HAIRPIN_SERVICE"
"""Names the service of the file where none can be typed: in an IDE's run configuration."""
_TARGETS = frozenset({"target", "match", "port", "identity"})
"""What has no meaning in mode egress."""
_EGRESS = "egress"
_OTHERS_MESH = {"config": ("context", "kubeconfig"), "context": ("config",), "kubeconfig": ("config",)}
"""Where a flag names one kind of mesh, what would name another."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The flags as they hold."""

    arguments: argparse.Namespace
    source: str = ""
    """Which file took part, in words; empty if none."""
    folder: Path | None = None
    """Where the command is to be run; None: here."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where the value of a flag stands, of those that the file gave."""

    def told(self, error: InvalidFieldError) -> InvalidFieldError:
        """An error of a flag, said of the file's line if its value came from there."""
        where = self.origins.get(error.field)
        if where is None:
            return error
        return InvalidFieldError(where, error.value, error.problem, error.remedy)


def settle(
    command: Any, arguments: argparse.Namespace, given: frozenset[str], environ: Mapping[str, str], here: Path
) -> Settled:
    """Fill in what was not typed.

    Args:
        command: `hairpin run`, for its flags.
        arguments: what was typed, and defaults for the rest.
        given: the names in `arguments` that were typed.
        environ: for variables in the file, and HAIRPIN_SERVICE.
        here: the folder from which the file is looked for, upwards.

    Raises:
        NotFoundError: the file, the service or a variable is not there.
        InvalidFieldError: something in the file is wrong.
    """
    path = _path(arguments, here)
    if path is None:
        if arguments.service:
            _refuse_word(arguments.service, arguments.command)
        return Settled(arguments)
    parser = flags_of(command)
    keys = keys_of(parser)
    project = read_project(path, keys)
    sections = _sections(project, arguments, given, environ)
    typed = {name for name, key in keys.items() if key.action.dest in given}
    chosen = list(_choose(keys, sections, typed, arguments))
    origins: dict[str, str] = {}
    words = []
    for name, value, section in chosen:
        where = project.at(f"{section.where}.{name}" if section.where else name)
        words += _words(keys[name], value, environ, where, path.parent)
        origins[keys[name].flag] = where
    found = _parsed(parser, words, project)
    merged = argparse.Namespace(**vars(arguments))
    for dest, value in vars(found).items():
        if dest not in given:
            setattr(merged, dest, value)
        elif isinstance(value, list):  # of rules, the first that matches holds: what is typed stands before the file's
            setattr(merged, dest, [*getattr(arguments, dest), *value])
    folder = None
    if not arguments.command and (ready := _first(COMMAND, sections)):
        merged.command = list(ready)
        folder = path.absolute().parent / filled_in(_first(FOLDER, sections) or ".", environ, project.at(FOLDER))
        if not folder.is_dir():
            raise NotFoundError(f"{project.at(FOLDER)}: there is no folder {folder}")
    return Settled(merged, _source(project, sections), folder, origins)


def _path(arguments: argparse.Namespace, here: Path) -> Path | None:
    if arguments.no_file:
        return None
    if arguments.file is None:
        return find_project(here)
    path = Path(arguments.file)
    return path / NAME if path.is_dir() else path


def _refuse_word(word: str, command: Sequence[str]) -> None:
    rest = " ".join((word, *command))
    raise InvalidFieldError(
        repr(word), None, f"is not a flag; a command to run comes after --: hairpin run … -- {rest}",
        f"a service's name needs a {NAME}, and none is here or above",
    )  # fmt: skip


def _sections(
    project: Project, arguments: argparse.Namespace, given: frozenset[str], environ: Mapping[str, str]
) -> tuple[Section, ...]:
    """Whose keys count, the nearest first."""
    name, said = arguments.service, ""
    if not name and (name := environ.get(SERVICE_VARIABLE)):
        said = f"{SERVICE_VARIABLE}: "
    known = ", ".join(project.services) or "no services"
    if name:
        if name not in project.services:
            guess = closest(name, project.services)
            remedy = (
                f"did you mean {guess}?" if guess else f"there are {known}" if project.services else f"it has {known}"
            )
            hint = "" if said else "; a command to run comes after --"
            raise NotFoundError(f"{said}{name!r} is no service of {project.shown}; {remedy}{hint}")
        return project.services[name], project.common
    if len(project.services) == 1:
        return (*project.services.values(), project.common)
    if project.services and "target" not in given and arguments.mode != _EGRESS:
        first = next(iter(project.services))
        raise InvalidFieldError(
            project.shown, None, f"has several services: {known}", f"say which: hairpin run {first}"
        )
    return (project.common,)


def _choose(
    keys: Mapping[str, Key], sections: Sequence[Section], typed: set[str], arguments: argparse.Namespace
) -> Iterator[tuple[str, Any, Section]]:
    """The values that hold, the nearest first; those of a list's key from every section."""
    held = set(typed)
    egress = "mode" in typed and arguments.mode == _EGRESS
    for section in sections:
        above = set(held)
        for name, value in section.values.items():
            if name not in keys or (name in above and not keys[name].several):
                continue
            if (egress and name in _TARGETS) or any(other in above for other in _OTHERS_MESH.get(name, ())):
                continue
            held.add(name)
            yield name, value, section
        egress = egress or ("mode" not in above and section.values.get("mode") == _EGRESS)


def _words(key: Key, value: Any, environ: Mapping[str, str], where: str, folder: Path) -> list[str]:
    def text(item: Any) -> Any:
        if not isinstance(item, str):
            return item
        item = filled_in(item, environ, where)
        return str(folder / Path(item).expanduser()) if key.is_path else item

    return key.words(tuple(map(text, value)) if key.several else text(value))


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str], project: Project) -> argparse.Namespace:
    try:
        return parser.parse_args(words)
    except argparse.ArgumentError as error:  # a type or choice of argparse's own
        raise InvalidFieldError(project.shown, None, f"is refused: {error}", "see hairpin run --help") from None


def _first(name: str, sections: Sequence[Section]) -> Any:
    return next((section.values[name] for section in sections if name in section.values), None)


def _source(project: Project, sections: Sequence[Section]) -> str:
    service = sections[0].where.partition(".")[2]
    return f"settings: {project.shown}" + (f", service {service}" if service else "")
