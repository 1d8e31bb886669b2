"""`hairpin stop`: give requests back from elsewhere."""

from __future__ import annotations

import argparse

from hairpin.cli import Command
from local_proxy.commands.run import add_connection_arguments
from local_proxy.commands.settings import add_file_arguments, parse_typed, settled_connection


class Stop(Command):
    """End sessions of one's own."""

    help = "end a session of yours and give its requests back"
    examples = ("hairpin stop checkout-alice-1347d5", "hairpin stop --all")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        parser.add_argument(
            "name", nargs="*", default=[], metavar="NAME", help="the session, as `hairpin sessions` shows it"
        )
        parser.add_argument("--all", action="store_true", help="all of yours")
        parser.add_argument(
            "-n",
            "--namespace",
            metavar="NAME",
            help="the sessions' namespace (default: the kubeconfig's; embedded: any)",
        )
        add_connection_arguments(parser)
        add_file_arguments(parser.add_argument_group("the team's settings, which say the mesh where nothing is typed"))

    def parse(self, parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Read the words, and note what was typed: hairpin.yaml has the rest of the connection."""
        return parse_typed(parser, words)

    def run(self, arguments: argparse.Namespace) -> int:
        """End them."""
        from local_proxy.sessions import stop_sessions  # noqa: PLC0415

        return stop_sessions(settled_connection(arguments), arguments.name, every=arguments.all)


command = Stop()
