"""The flags `--local`, `--mesh` and `--refuse`, for every command that has them. Light."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

_HELP = {
    "local": "what the command reaches directly, not through the mesh",
    "mesh": "what it reaches through the mesh, where a later --local or --refuse would say otherwise",
    "refuse": "what it does not reach at all",
}


class _Ordered(argparse.Action):
    """Keeps the order among all three flags: the first rule that matches decides."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Append."""
        del parser
        flag = (option_string or self.option_strings[0]).removeprefix("--")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), (flag, str(values))])


def add_rule_arguments(group: argparse._ActionsContainer) -> None:
    """The three flags; they end up in `rules`, in their order."""
    for action, text in _HELP.items():
        group.add_argument(
            f"--{action}",
            dest="rules",
            action=_Ordered,
            default=[],
            metavar="HOST[:PORTS]",
            help=f"{text}; may be given several times, the first that matches decides",
        )
