"""The keys of hairpin.yaml: one for each flag of `hairpin run`, derived from argparse's own table of them.

A flag's key is its long name: `--egress-port` is `egress-port`, `--no-requests` is `requests: false`. What may stand there
follows from how the flag is declared: one that stores a value takes a text or a number, one that may be given several
times takes a list as well, a switch takes true or false. A metavar of words (`auto|on|off`) is a choice, PORT a port's
number, FILE and FOLDER a path that starts at the file's own folder. So a new flag has its key without a line here.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hairpin.model.shape import Field, Record, Shape
from local_proxy.project.shapes import ListedAs, MapOf, Plain, Switch, Words

COMMAND, FOLDER, SERVICES = "command", "folder", "services"
_OWN = {
    COMMAND: "what is run if nothing is typed after `--`: a list of words, or one text that is split as a shell would",
    FOLDER: "where the command is run, from this file's own folder (default: there)",
}
"""The keys that are no flag's."""
_NOT_HERE = {"help", "debug", "file", "no-file", "service"}
"""What is only typed: about the file itself, or this one time."""
_PATHS = {"FILE", "FOLDER"}
_NEGATIVE = "no-"


class UnsupportedFlagError(TypeError):
    """A flag of `hairpin run` that no key can stand for: a mistake in its declaration, which a test finds."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and the flag that it stands for."""

    name: str
    flag: str
    """The flag's long form."""
    action: argparse.Action
    several: bool
    """Whether the flag may be given several times, so that a list may stand here."""
    shape: Shape[Any]

    @property
    def is_path(self) -> bool:
        """Whether its value is a path on this machine."""
        return self.action.metavar in _PATHS

    def words(self, value: Any) -> list[str]:
        """The value as words of a command line."""
        if isinstance(value, bool):
            return [self.flag] if value is not self._negated else []
        return [f"{self.flag}={item}" for item in (value if self.several else [value])]

    @property
    def _negated(self) -> bool:
        return self.flag.removeprefix("--") != self.name


def flags_of(command: Any) -> argparse.ArgumentParser:
    """A parser with a command's flags that leaves out what was not given, and raises where argparse would exit.

    Args:
        command: a `hairpin.cli.Command`.
    """
    parser = _Parser(allow_abbrev=False, add_help=False)
    command.add_arguments(parser)
    for action in parser._actions:  # noqa: SLF001 # argparse has no other way to them
        action.default = argparse.SUPPRESS
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise argparse.ArgumentError(None, message)


def keys_of(parser: argparse.ArgumentParser) -> dict[str, Key]:
    """The keys, by name, in the order of the flags.

    Raises:
        UnsupportedFlagError: a flag is of a kind that this module does not know.
    """
    keys = (_key(action) for action in parser._actions if action.option_strings)  # noqa: SLF001
    return {key.name: key for key in keys if key is not None}


def _key(action: argparse.Action) -> Key | None:
    flag = next((option for option in action.option_strings if option.startswith("--")), None)
    if flag is None:
        raise UnsupportedFlagError(
            f"{action.option_strings} has no long form, which hairpin.yaml's key would be: add one"
        )
    name = flag.removeprefix("--")
    if name in _NOT_HERE:
        return None
    if action.nargs == 0:
        if not isinstance(action, argparse._StoreTrueAction):  # noqa: SLF001
            raise UnsupportedFlagError(
                f'{flag} is a switch, but not `action="store_true"`: hairpin.yaml has no key for it'
            )
        return Key(name.removeprefix(_NEGATIVE), flag, action, several=False, shape=Switch(action.help or ""))
    if action.nargs is not None:
        raise UnsupportedFlagError(
            f"{flag} takes {action.nargs} words: hairpin.yaml's key is one value, so declare it with one, repeated if need be"
        )
    one = Plain(str(action.metavar or "VALUE"), action.help or "", tuple(map(str, action.choices or ())))
    several = not isinstance(action, argparse._StoreAction)  # noqa: SLF001 # append, and actions of our own that collect
    return Key(name, flag, action, several=several, shape=ListedAs(one) if several else one)


def document_shape(keys: Mapping[str, Key]) -> Record[dict[str, Any]]:
    """What hairpin.yaml must look like."""
    own = {COMMAND: Field(Words(_OWN[COMMAND])), FOLDER: Field(Plain("FOLDER", _OWN[FOLDER]))}
    settings = {name: Field(key.shape) for name, key in keys.items()} | own
    service: Record[dict[str, Any]] = Record(fields=settings, build=_given)
    about = "several services of one repository: `hairpin run NAME` takes one's keys, and those above it for the rest"
    return Record(fields=settings | {SERVICES: Field(MapOf(service, about))}, build=_given)


def _given(found: dict[str, Any], where: str) -> dict[str, Any]:  # noqa: ARG001 # a Record's builder
    return {name: value for name, value in found.items() if value is not None}
