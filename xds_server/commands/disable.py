"""`hairpin disable`: light, since the command line loads it for its help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hairpin.cli import Command
from xds_server.commands.enable import add_arguments, say

if TYPE_CHECKING:
    import argparse


class Disable(Command):
    """Take the plumbing off a workload."""

    help = "take the plumbing off a workload"
    description = (
        "Changes the inbound listener of the workload's sidecars back to what Istio alone makes it; its connections drain. "
        "Refuses while someone's session takes requests there, unless --force, which ends those sessions."
    )
    examples = ("hairpin disable deployment/checkout -n shop", "hairpin disable checkout -n shop --force")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        add_arguments(parser)
        parser.add_argument("--force", action="store_true", help="end the sessions on it")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it."""
        import asyncio  # noqa: PLC0415

        return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from hairpin.kubernetes.api import connect  # noqa: PLC0415
    from hairpin.model.target import Target  # noqa: PLC0415
    from xds_server.commands.plumbing import disable  # noqa: PLC0415 # envoy-data-plane takes a second

    async with connect(kubeconfig=arguments.kubeconfig, context=arguments.context) as api:
        target = Target.parse(arguments.target, arguments.namespace or api.namespace, "TARGET")
        await disable(api, target, force=arguments.force, say=say, seconds=arguments.timeout)
    return 0


command = Disable()
