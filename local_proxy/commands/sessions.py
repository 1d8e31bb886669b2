"""`hairpin sessions`: who takes which requests."""

from __future__ import annotations

import argparse

from hairpin.cli import Command
from local_proxy.commands.run import add_connection_arguments
from local_proxy.commands.settings import add_file_arguments, parse_typed, settled_connection


class Sessions(Command):
    """List the sessions."""

    help = "show who takes which requests"
    description = "Lists the sessions of the mesh: everyone's, so that all see who holds what."
    examples = ("hairpin sessions", "hairpin sessions -o json", "hairpin sessions -A --context staging")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        parser.add_argument(
            "-o", "--output", choices=("table", "json", "yaml"), default="table", help="the format (default: table)"
        )
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "-n",
            "--namespace",
            metavar="NAME",
            help="the targets' namespace (default: the kubeconfig's; embedded: all)",
        )
        which.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
        add_connection_arguments(parser)
        add_file_arguments(parser.add_argument_group("the team's settings, which say the mesh where nothing is typed"))

    def parse(self, parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Read the words, and note what was typed: hairpin.yaml has the rest of the connection."""
        return parse_typed(parser, words)

    def run(self, arguments: argparse.Namespace) -> int:
        """Print them."""
        from local_proxy.sessions import print_sessions  # noqa: PLC0415

        return print_sessions(settled_connection(arguments), arguments.output)


command = Sessions()
