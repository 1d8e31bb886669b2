"""`hairpin sessions`: who takes which requests."""

from __future__ import annotations

import argparse

from hairpin.cli import Command
from local_proxy.commands.run import add_connection_arguments


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

    def run(self, arguments: argparse.Namespace) -> int:
        """Print them."""
        from local_proxy.options import connection_of  # noqa: PLC0415
        from local_proxy.sessions import print_sessions  # noqa: PLC0415

        return print_sessions(connection_of(arguments), arguments.output)


command = Sessions()
