"""`hairpin run`'s command line and hairpin.yaml, made one: what is typed wins, then the service's keys, then those of all."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
_CONNECTION = frozenset({"config", "context", "kubeconfig", "namespace"})
"""Which control plane is meant."""


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


def settle(command: Any, arguments: argparse.Namespace, environ: Mapping[str, str], here: Path) -> Settled:
    """Fill in what was not typed.

    Args:
        command: `hairpin run`, for its flags.
        arguments: what was typed, and defaults for the rest; `typed` has the names of what was typed.
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
    file = _File.read(path, command, environ)
    sections = _sections(file.project, arguments, environ)
    typed = file.typed(arguments)
    settled = file.settled(arguments, list(_choose(file.keys, sections, typed, arguments)), sections)
    if arguments.command or not (ready := _first(COMMAND, sections)):
        return settled
    where = file.project.at(FOLDER)
    folder = path.absolute().parent / filled_in(_first(FOLDER, sections) or ".", environ, where)
    if not folder.is_dir():
        raise NotFoundError(f"{where}: there is no folder {folder}")
    settled.arguments.command = list(ready)
    return replace(settled, folder=folder)


def settle_connection(command: Any, arguments: argparse.Namespace, environ: Mapping[str, str], here: Path) -> Settled:
    """Fill in which control plane is meant, for a command that is about no service of the file.

    The keys are the file's own, and those of its one service, or of the one that HAIRPIN_SERVICE names.

    Args:
        command: `hairpin run`, for its flags.
        arguments: as for `settle`, with the flags of a connection.
        environ: for variables in the file, and HAIRPIN_SERVICE.
        here: the folder from which the file is looked for, upwards.

    Raises:
        NotFoundError: the file, the service or a variable is not there.
        InvalidFieldError: something in the file is wrong.
    """
    path = _path(arguments, here)
    if path is None:
        return Settled(arguments)
    file = _File.read(path, command, environ)
    sections: tuple[Section, ...] = (file.project.common,)
    if name := environ.get(SERVICE_VARIABLE):
        sections = (_service(file.project, name, f"{SERVICE_VARIABLE}: "), *sections)
    elif len(file.project.services) == 1:
        sections = (*file.project.services.values(), *sections)
    typed = file.typed(arguments)
    if getattr(arguments, "all_namespaces", False):
        typed.add("namespace")
    chosen = [found for found in _choose(file.keys, sections, typed, arguments) if found[0] in _CONNECTION]
    return file.settled(arguments, chosen, sections) if chosen else Settled(arguments)


@dataclass(frozen=True, slots=True)
class _File:
    """A hairpin.yaml that was read, and what its keys mean."""

    project: Project
    parser: argparse.ArgumentParser
    keys: Mapping[str, Key]
    environ: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, command: Any, environ: Mapping[str, str]) -> _File:
        parser = flags_of(command)
        keys = keys_of(parser)
        return cls(read_project(path, keys), parser, keys, environ)

    def typed(self, arguments: argparse.Namespace) -> set[str]:
        """The keys whose flags were typed."""
        return {name for name, key in self.keys.items() if key.action.dest in arguments.typed}

    def settled(
        self, arguments: argparse.Namespace, chosen: Sequence[tuple[str, Any, Section]], sections: Sequence[Section]
    ) -> Settled:
        """What was typed, with the values that were chosen of the file for the rest."""
        origins: dict[str, str] = {}
        words = []
        for name, value, section in chosen:
            where = self.project.at(f"{section.where}.{name}" if section.where else name)
            words += _words(self.keys[name], value, self.environ, where, self.project.path.parent)
            origins[self.keys[name].flag] = where
        merged = argparse.Namespace(**vars(arguments))
        for dest, value in vars(_parsed(self.parser, words, self.project)).items():
            if dest not in arguments.typed:
                setattr(merged, dest, value)
            elif isinstance(
                value, list
            ):  # of rules, the first that matches holds: what is typed stands before the file's
                setattr(merged, dest, [*getattr(arguments, dest), *value])
        return Settled(merged, _source(self.project, sections), None, origins)


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


def _sections(project: Project, arguments: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Section, ...]:
    """Whose keys count, the nearest first."""
    if name := arguments.service:
        return _service(project, name), project.common
    if name := environ.get(SERVICE_VARIABLE):
        return _service(project, name, f"{SERVICE_VARIABLE}: "), project.common
    if len(project.services) == 1:
        return (*project.services.values(), project.common)
    if project.services and "target" not in arguments.typed and arguments.mode != _EGRESS:
        known, first = ", ".join(project.services), next(iter(project.services))
        raise InvalidFieldError(
            project.shown, None, f"has several services: {known}", f"say which: hairpin run {first}"
        )
    return (project.common,)


def _service(project: Project, name: str, said: str = "") -> Section:
    """A service by its name, which was typed, or comes from elsewhere as `said` says."""
    if name in project.services:
        return project.services[name]
    known = ", ".join(project.services) or "no services"
    guess = closest(name, project.services)
    remedy = f"did you mean {guess}?" if guess else f"there are {known}" if project.services else f"it has {known}"
    hint = "" if said else "; a command to run comes after --"
    raise NotFoundError(f"{said}{name!r} is no service of {project.shown}; {remedy}{hint}")


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
