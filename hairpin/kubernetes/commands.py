"""`hairpin install` and `hairpin uninstall`: light, since the command line loads them for its help."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hairpin.cli import Command

if TYPE_CHECKING:
    import argparse

    from hairpin.kubernetes.installation import Installation, Published
    from hairpin.model.delivery import Delivery
    from hairpin.model.environment import RoutingKey


class Install(Command):
    """Install hairpin in a cluster."""

    help = "install hairpin in a cluster with Istio"
    description = (
        "Applies hairpin's objects to the cluster of your kubeconfig: the controller in a namespace of its own, and an agent in "
        "each namespace that you name. Given again with other choices, it brings the installation up to date."
    )
    examples = (
        "hairpin install --namespace shop",
        "hairpin install --namespace shop --namespace billing --identity checkout",
        "hairpin install --namespace shop --dry-run",
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        add = parser.add_argument
        add(
            "-n",
            "--namespace",
            action="append",
            required=True,
            metavar="NAMESPACE",
            help="a namespace to serve; again for more",
        )
        add("--image", metavar="IMAGE", help="hairpin's image (default: hairpin:VERSION)")
        add(
            "--identity",
            action="append",
            default=[],
            metavar="ACCOUNT",
            help="a service account of the namespaces whose identity sessions may have; again for more",
        )
        add(
            "--published-address",
            metavar="HOST[:TUNNEL:EGRESS]",
            help="where laptops reach agents; {pod}, {namespace} are replaced",
        )
        add("--agents", type=int, default=2, metavar="N", help="replicas of each agent (default: 2)")
        add("--controllers", type=int, default=2, metavar="N", help="replicas of the controller (default: 2)")
        add(
            "--routing-key",
            default="header:x-env",
            metavar="KEY",
            help="what marks requests: header:x-env (default), baggage:env, …",
        )
        add(
            "--delivery",
            default="inbound",
            metavar="WHERE",
            help="who steers: inbound (the target's sidecars, the default), outbound, waypoint-httproute, …",
        )
        add(
            "--trust-domain",
            default="cluster.local",
            metavar="DOMAIN",
            help="Istio's trust domain (default: cluster.local)",
        )
        add(
            "--cluster-domain",
            default="cluster.local",
            metavar="DOMAIN",
            help="of Services' names (default: cluster.local)",
        )
        add("--root-namespace", default="istio-system", metavar="NAMESPACE", help="Istio's (default: istio-system)")
        add("--dry-run", action="store_true", help="print the objects as YAML, and touch no cluster")
        add("--no-wait", action="store_true", help="do not wait until the pods run")
        _add_connection(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the objects, or apply them."""
        from hairpin.kubernetes.objects import installation_objects  # noqa: PLC0415
        from hairpin.kubernetes.yaml_text import yaml_text  # noqa: PLC0415

        installation = installation_of(arguments)
        if arguments.dry_run:
            sys.stdout.write(yaml_text(installation_objects(installation)))
            return 0
        import asyncio  # noqa: PLC0415

        asyncio.run(_install(arguments, installation))
        return 0


class Uninstall(Command):
    """Take hairpin out of a cluster."""

    help = "take hairpin out of a cluster, sessions and all"
    description = (
        "Removes all of hairpin from the cluster of your kubeconfig: sessions, EnvoyFilters, agents, the controller, roles, "
        "custom resources and the namespace hairpin-system. Requests go to the applications throughout."
    )
    examples = ("hairpin uninstall",)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The flags."""
        _add_connection(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Remove everything."""
        import asyncio  # noqa: PLC0415

        return asyncio.run(_uninstall(arguments))


install_command = Install()
uninstall_command = Uninstall()


def installation_of(arguments: argparse.Namespace) -> Installation:
    """The installation that the flags describe.

    Raises:
        InvalidFieldError: a flag can't be used.
    """
    from dataclasses import replace  # noqa: PLC0415

    from hairpin.kubernetes.installation import Installation, check_installation  # noqa: PLC0415

    found = Installation(
        namespaces=tuple(arguments.namespace),
        identities=tuple(arguments.identity),
        agents=arguments.agents,
        controllers=arguments.controllers,
        published=_published(arguments.published_address) if arguments.published_address is not None else None,
        trust_domain=arguments.trust_domain,
        cluster_domain=arguments.cluster_domain,
        root_namespace=arguments.root_namespace,
        routing_key=_routing_key(arguments.routing_key),
        delivery=_delivery(arguments.delivery),
    )
    return check_installation(replace(found, image=arguments.image) if arguments.image else found)


def _published(text: str) -> Published:
    """`HOST` or `HOST:TUNNEL:EGRESS`."""
    from hairpin.errors import InvalidFieldError  # noqa: PLC0415
    from hairpin.kubernetes.installation import Published  # noqa: PLC0415

    host, *ports = text.split(":")
    last = 65535
    usable = all(port.isascii() and port.isdigit() and 0 < int(port) <= last for port in ports)
    if not host or len(ports) not in (0, 2) or not usable:
        remedy = "write HOST, or HOST:TUNNEL-PORT:EGRESS-PORT, as in {pod}.agents.example.com:9443:9444"
        raise InvalidFieldError("--published-address", text, "is no address", remedy)
    return Published(host, *map(int, ports))


def _delivery(text: str) -> Delivery:
    from hairpin.errors import InvalidFieldError  # noqa: PLC0415
    from hairpin.model.delivery import Delivery  # noqa: PLC0415

    try:
        return Delivery(text)
    except ValueError:
        raise InvalidFieldError("--delivery", text, "is no delivery", f"choose one of {', '.join(Delivery)}") from None


def _routing_key(text: str) -> RoutingKey:
    """`header:x-env` and its like."""
    from hairpin.errors import InvalidFieldError  # noqa: PLC0415
    from hairpin.model.routing_key_json import routing_key_from_json  # noqa: PLC0415

    carrier, colon, name = text.partition(":")
    if not colon:
        raise InvalidFieldError("--routing-key", text, "names no carrier", "write it as in header:x-env or baggage:env")
    return routing_key_from_json({carrier: name}, "--routing-key")


def _add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="how long to wait (default: 300)")


async def _install(arguments: argparse.Namespace, installation: Installation) -> None:
    from hairpin.kubernetes.api import connect  # noqa: PLC0415
    from hairpin.kubernetes.install import install  # noqa: PLC0415

    async with connect(kubeconfig=arguments.kubeconfig, context=arguments.context) as api:
        await install(api, installation, say=_say, wait_seconds=0 if arguments.no_wait else arguments.timeout)


async def _uninstall(arguments: argparse.Namespace) -> int:
    from hairpin.kubernetes.api import connect  # noqa: PLC0415
    from hairpin.kubernetes.uninstall import uninstall  # noqa: PLC0415

    async with connect(kubeconfig=arguments.kubeconfig, context=arguments.context) as api:
        removed = await uninstall(api, say=_say, wait_seconds=arguments.timeout)
        _say(f"{removed} objects removed; nothing of hairpin is left" if removed else "nothing of hairpin was there")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
