"""`hairpin run`: the command line of it."""

from __future__ import annotations

import argparse

from hairpin.cli import Command
from local_proxy.commands.rule_arguments import add_rule_arguments
from local_proxy.commands.settings import add_file_arguments, parse_typed
from local_proxy.target.flags import add_target_arguments


class Run(Command):
    """Take an environment's requests to a local process."""

    help = "answer an environment's requests with a process on this machine"
    description = (
        "Starts COMMAND here, and has the requests of a feature environment, wherever in the mesh they are made, "
        "answered by it. Its own requests leave through the mesh. When it ends, everything is given back. "
        "Without COMMAND, --port names a process that runs already; Ctrl-C ends it. "
        "What is not typed is taken from the nearest hairpin.yaml, in this folder or above it."
    )
    examples = (
        "hairpin run --env alice --target checkout -- python checkout.py",
        "hairpin run checkout                               (the rest is in the repository's hairpin.yaml)",
        "hairpin run --env alice -t checkout:grpc -n shop --port 50051 -- npm start",
        "hairpin run -t checkout --match 'header x-user=42 and path ^/api' -- ./checkout",
        "hairpin run --env alice -t checkout --port 8080            (it runs already, in an IDE say)",
        "hairpin run --env alice -t deployment/checkout -n shop --context staging -- ./checkout",
        "hairpin run --env alice -t checkout --mode mirror -- ./app  (gets copies, the cluster answers)",
        "hairpin run --mode egress -- python -m pytest              (takes no requests, calls into the mesh)",
    )
    takes_command = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags. Each has its key in hairpin.yaml, by the way it is declared: see `local_proxy.project.keys`."""
        file = parser.add_argument_group("the team's settings")
        file.add_argument(
            "service", nargs="?", metavar="SERVICE", help="the service of hairpin.yaml, if it has several"
        )
        add_file_arguments(file)
        what = parser.add_argument_group("which requests")
        what.add_argument("-e", "--env", metavar="NAME", help="the feature environment whose requests are taken")
        what.add_argument("-t", "--target", metavar="[KIND/]NAME[:PORT]", help="the service that they are meant for")
        what.add_argument(
            "-n", "--namespace", metavar="NAME", help="the target's namespace (default: the kubeconfig's, or default)"
        )
        what.add_argument("--match", metavar="EXPRESSION", help="what requests must satisfy besides")
        what.add_argument(
            "--mode",
            default="steal",
            metavar="steal|mirror|egress",
            help="steal: the process here answers (default); mirror: it gets copies, the cluster answers; "
            "egress: it takes none, only calls into the mesh",
        )
        here = parser.add_argument_group("this machine")
        here.add_argument(
            "-p", "--port", metavar="PORT", help="the local process's port (default: the first it listens on)"
        )
        here.add_argument(
            "--egress-port", metavar="PORT", help="the port of the HTTP proxy into the mesh (default: a free one)"
        )
        add_rule_arguments(here)
        here.add_argument(
            "--intercept",
            default="auto",
            metavar="WHEN",
            help="have all of the command's connections and names in the mesh: auto (default): where this machine can, "
            "else set proxy variables; on: or don't run it; off: set proxy variables",
        )
        here.add_argument(
            "--connect",
            default="at-once",
            metavar="at-once|exact",
            help="when its connects into the mesh are answered: at-once (default): as by a sidecar, before the destination is "
            "dialled; exact: when it is, with its error",
        )
        here.add_argument(
            "--udp",
            default="refuse",
            metavar="HOW",
            help="what becomes of its UDP, which the mesh does not carry: refuse (default), or pass: from this machine",
        )
        here.add_argument(
            "--inject-env",
            action="store_true",
            help="add the environment's header to the command's HTTP requests that lack it (HTTP/1.1 and h2c, not TLS)",
        )
        here.add_argument(
            "--lease", metavar="SECONDS", help="how long the requests stay taken after the tunnel is lost (default: 10)"
        )
        here.add_argument(
            "--if-killed",
            default="end",
            metavar="WHAT",
            help="what becomes of the command if hairpin itself is killed: end (default), or keep: it goes on, and its "
            "connects fail",
        )
        add_connection_arguments(parser)
        cluster = parser.add_argument_group("in Kubernetes")
        cluster.add_argument(
            "--identity",
            default="agent",
            metavar="agent|target",
            help="as whom calls arrive: agent (default), or target: its service account, where an operator allows that",
        )
        cluster.add_argument(
            "--port-forward",
            default="hairpin",
            metavar="hairpin|kubectl",
            help="what reaches the agent if it has no published address: hairpin itself (default), or kubectl",
        )
        add_target_arguments(parser)
        output = parser.add_argument_group("output (on stderr)")
        output.add_argument("-q", "--quiet", action="store_true", help="errors only")
        output.add_argument("--no-requests", action="store_true", help="no line per request")

    def parse(self, parser: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Read the words, and note what was typed: hairpin.yaml has the rest."""
        return parse_typed(parser, words)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run it."""
        import os  # noqa: PLC0415
        from dataclasses import replace  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        from hairpin.errors import InvalidFieldError  # noqa: PLC0415
        from local_proxy.options import run_options  # noqa: PLC0415
        from local_proxy.project.settle import settle  # noqa: PLC0415
        from local_proxy.run import run  # noqa: PLC0415

        settled = settle(self, arguments, os.environ, Path.cwd())
        try:
            options = replace(run_options(settled.arguments), source=settled.source)
        except InvalidFieldError as error:
            raise settled.told(error) from None
        if settled.folder is not None:
            os.chdir(settled.folder)
        return run(options)


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """How to reach the control plane: the same for every command."""
    where = parser.add_argument_group("which mesh")
    where.add_argument(
        "--config",
        metavar="FILE",
        help="the file that an embedded mesh wrote for you (default: HAIRPIN_CONFIG, or that of the mesh on this machine)",
    )
    where.add_argument(
        "--context", metavar="NAME", help="a Kubernetes cluster: the kubeconfig's context (default: its current one)"
    )
    where.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="a Kubernetes cluster: the kubeconfig (default: KUBECONFIG, or ~/.kube/config)",
    )


command = Run()
