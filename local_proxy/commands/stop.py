"""`hairpin stop`: give requests back from elsewhere."""

from __future__ import annotations

import argparse

from hairpin.cli import Command
from local_proxy.commands.run import add_connection_arguments


class Stop(Command):
    """End sessions of one's own."""

    help = "end a session of yours and give its requests back"
    examples = ("hairpin stop checkout-alice-1347d5", "hairpin stop --all")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        parser.add_argument("name", nargs="*", metavar="NAME", help="the session, as `hairpin sessions` shows it")
        parser.add_argument("--all", action="store_true", help="all of yours")
        parser.add_argument(
            "-n",
            "--namespace",
            metavar="NAME",
            help="the sessions' namespace (default: the kubeconfig's; embedded: any)",
        )
        add_connection_arguments(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """End them."""
        from local_proxy.options import connection_of  # noqa: PLC0415
        from local_proxy.sessions import stop_sessions  # noqa: PLC0415

        return stop_sessions(connection_of(arguments), arguments.name, every=arguments.all)


command = Stop()
