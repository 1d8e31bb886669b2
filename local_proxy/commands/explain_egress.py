"""`hairpin explain-egress`: the command line of it."""

from __future__ import annotations

import argparse
import sys

from hairpin.cli import Command
from local_proxy.commands.rule_arguments import add_rule_arguments
from local_proxy.commands.run import add_connection_arguments
from local_proxy.commands.run import command as run_command
from local_proxy.commands.settings import add_file_arguments, defaults_of, parse_typed


class ExplainEgress(Command):
    """Say where a connection of the command's would go."""

    help = "say where a connection would go, and which rule says so"
    description = (
        "Says of a connection that a command under `hairpin run --intercept` would make: which rule decides, where the name "
        "leads, and what the cluster says of it. Exits with 0 if it is let through, with 7 if it is refused, with 3 if there "
        "is no such name. The cluster is asked in a session that takes no requests and is given back at once."
    )
    examples = (
        "hairpin explain-egress inventory:80",
        "hairpin explain-egress db.prod:5432 --refuse '*.prod' --offline",
        "hairpin explain-egress 10.96.1.2:443 -n shop --context staging",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags: those of `hairpin run` that matter here."""
        parser.add_argument("destination", metavar="HOST:PORT", help="the connection's destination")
        parser.add_argument("--offline", action="store_true", help="the rules alone: don't ask the cluster")
        file = parser.add_argument_group("the team's settings")
        file.add_argument("service", nargs="?", metavar="SERVICE", help="the service of hairpin.yaml whose rules count")
        add_file_arguments(file)
        rules = parser.add_argument_group("rules, as of hairpin run")
        add_rule_arguments(rules)
        which = parser.add_argument_group("whose connection")
        which.add_argument(
            "-e", "--env", metavar="NAME", help="the feature environment, which an EgressPolicy may name"
        )
        which.add_argument(
            "-n", "--namespace", metavar="NAME", help="the agent's (default: the kubeconfig's, or default)"
        )
        add_connection_arguments(parser)

    def parse(self, parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Read the words, and note what was typed: hairpin.yaml has the rest."""
        return parse_typed(parser, words)

    def run(self, arguments: argparse.Namespace) -> int:
        """Explain it."""
        import asyncio  # noqa: PLC0415
        import os  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        from hairpin.errors import InvalidFieldError  # noqa: PLC0415
        from local_proxy.explain import explain_egress, parse_destination  # noqa: PLC0415
        from local_proxy.options import run_options  # noqa: PLC0415
        from local_proxy.project.settle import settle  # noqa: PLC0415

        wanted = parse_destination(arguments.destination)
        # `hairpin run --mode egress`, with what was typed here.
        parser = argparse.ArgumentParser(add_help=False)
        run_command.add_arguments(parser)
        whole = defaults_of(parser) | vars(arguments) | {"mode": "egress", "typed": arguments.typed | {"mode"}}
        settled = settle(run_command, argparse.Namespace(**whole), os.environ, Path.cwd())
        try:
            options = run_options(settled.arguments)
        except InvalidFieldError as error:
            raise settled.told(error) from None
        explanation = asyncio.run(explain_egress(options, wanted, offline=arguments.offline, environ=os.environ))
        sys.stdout.write("".join(f"{line}\n" for line in explanation.lines))
        return explanation.exit_code


command = ExplainEgress()
