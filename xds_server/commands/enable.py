"""`hairpin enable`: light, since the command line loads it for its help."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hairpin.cli import Command

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of both commands."""
    add = parser.add_argument
    add("target", metavar="[KIND/]NAME[:PORT]", help="a service, deployment, statefulset, daemonset, rollout or pod")
    add("-n", "--namespace", metavar="NAMESPACE", help="its namespace (default: the context's)")
    add("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config")
    add("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
    add("--timeout", type=float, default=30, metavar="SECONDS", help="how long to wait for a sidecar (default: 30)")


def say(line: str) -> None:
    """A line for the operator."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Enable(Command):
    """Put the plumbing on a workload ahead of time."""

    help = "put the plumbing on a workload ahead of its first session"
    description = (
        "Changes the inbound listener of the workload's sidecars once, so that sessions come and go without a change: its "
        "connections drain now, not when a developer first needs it. Takes it back if a sidecar refuses it."
    )
    examples = ("hairpin enable deployment/checkout -n shop", "hairpin enable checkout:http -n shop")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        add_arguments(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it."""
        import asyncio  # noqa: PLC0415

        return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from hairpin.kubernetes.api import connect  # noqa: PLC0415
    from hairpin.model.target import Target  # noqa: PLC0415
    from xds_server.commands.plumbing import enable  # noqa: PLC0415 # envoy-data-plane takes a second

    async with connect(kubeconfig=arguments.kubeconfig, context=arguments.context) as api:
        target = Target.parse(arguments.target, arguments.namespace or api.namespace, "TARGET")
        await enable(api, target, say=say, seconds=arguments.timeout)
    return 0


command = Enable()
