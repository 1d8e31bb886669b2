"""What was typed, apart from what holds by default: hairpin.yaml's keys stand between the two. Light."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from local_proxy.control_planes import Connection


def parse_typed(parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line's words, once.

    Returns:
        The arguments with their defaults, and `typed`: the names of those that are among the words, whatever their
        values. What no argument takes, beside.
    """
    defaults = defaults_of(parser)
    for action in parser._actions:  # noqa: SLF001 # argparse has no other way to them
        action.default = argparse.SUPPRESS
    typed, extra = parser.parse_known_args(words)
    given = vars(typed)
    return argparse.Namespace(**(defaults | given), typed=frozenset(given)), extra


def defaults_of(parser: argparse.ArgumentParser) -> dict[str, object]:
    """The arguments' values where none is typed."""
    actions = parser._actions  # noqa: SLF001
    return {action.dest: action.default for action in actions if action.default is not argparse.SUPPRESS}


def add_file_arguments(group: argparse._ActionsContainer) -> None:
    """Which hairpin.yaml counts: the same for every command that reads it."""
    group.add_argument("--file", metavar="FILE", help="the hairpin.yaml (default: the nearest, here or above)")
    group.add_argument("--no-file", action="store_true", help="take nothing from a hairpin.yaml")


def settled_connection(arguments: argparse.Namespace) -> Connection:
    """Which control plane a command means that is about no service: as was typed, else as hairpin.yaml says.

    Raises:
        HairpinError: something in the file is wrong, or a value is empty.
    """
    import os  # noqa: PLC0415
    import sys  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from hairpin.errors import InvalidFieldError  # noqa: PLC0415
    from local_proxy.commands.run import command as run_command  # noqa: PLC0415
    from local_proxy.options import connection_of  # noqa: PLC0415
    from local_proxy.project.settle import settle_connection  # noqa: PLC0415

    settled = settle_connection(run_command, arguments, os.environ, Path.cwd())
    try:
        connection = connection_of(settled.arguments)
    except InvalidFieldError as error:
        raise settled.told(error) from None
    if settled.source:
        sys.stderr.write(f"{settled.source}\n")
    return connection
