"""A `Link` as `hairpin run`'s flags want it: with a folder for its keys and the way to the agent's replicas."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from hairpin.api import ServerRefusalError
from hairpin.errors import InvalidFieldError
from local_proxy.console import Console
from local_proxy.control_planes import EmbeddedMesh, KubernetesCluster
from local_proxy.intercept.choices import Connect
from local_proxy.kubectl import kubectl_forwards
from local_proxy.link import Link
from local_proxy.lookups import LookedUp
from local_proxy.news import News
from local_proxy.options import Forwarder, RunOptions, in_flags
from local_proxy.private import private_folder
from local_proxy.reach import Direct, Reach, port_forwards


@contextlib.asynccontextmanager
async def linked(
    options: RunOptions,
    plane: EmbeddedMesh | KubernetesCluster,
    console: Console,
    *,
    egress_port: int,
    gateway_port: int | None = None,
) -> AsyncIterator[Link]:
    """A session to be held (see `hold`), during the block.

    Args:
        options: the flags.
        plane: where it is claimed.
        console: where to tell what happens.
        egress_port: the HTTP proxy's port.
        gateway_port: the gateway's port; None: there is none.
    """
    with private_folder() as directory:
        news = News(console)
        async with _reaching(options, plane, news) as reach:
            yield Link(
                plane,
                reach,
                lambda request: options.spec(request, plane.namespace),
                directory,
                egress_port=egress_port,
                gateway_port=gateway_port,
                exact=options.connect is Connect.EXACT,
                inject_env=options.inject_env,
                console=console,
                news=news,
                asks=isinstance(plane, KubernetesCluster) and console.tells_requests,
            )


async def hold(link: Link) -> None:
    """Hold a session; what the control plane says of its fields is said of the flags."""
    try:
        await link.hold()
    except (InvalidFieldError, ServerRefusalError) as error:
        raise in_flags(error) from error


@contextlib.asynccontextmanager
async def _reaching(options: RunOptions, plane: EmbeddedMesh | KubernetesCluster, news: News) -> AsyncIterator[Reach]:
    """How the agent's replicas are reached, during the block."""
    if isinstance(plane, EmbeddedMesh):
        yield Direct()
        return

    if options.forwarder is Forwarder.KUBECTL:
        forwarding = kubectl_forwards(options.connection, plane.api.context, plane.namespace, news.way_lost)
    else:
        forwarding = port_forwards(plane.api, plane.namespace, news.way_lost)
    async with forwarding as forwards:
        yield LookedUp(forwards, news.way_lost)
