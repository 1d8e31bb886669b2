"""`python -m tests.support.cluster`: a mesh with hairpin to try things in by hand, until Ctrl-C; or from nothing to a steered request."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import signal
import sys

from tests.support.builds import MissingError
from tests.support.cluster.mesh import Cluster, cluster
from tests.support.istio_mesh import DEVELOPERS, IstioMesh, applications, install


def describe(made: Cluster) -> str:
    """What one needs to know to use it."""
    enter = shlex.join(made.host.enter)
    laptop = shlex.join(made.laptop.command("bash", user="alice", namespace="shop"))
    return f"""\
The mesh is up; Ctrl-C ends it and everything in it.

from here:     export KUBECONFIG={made.kubeconfig(namespace="shop")}
               PATH="{made.plane.binaries.kubectl.parent}:$PATH"     # kubectl
as alice:      KUBECONFIG={made.kubeconfig("alice", namespace="shop")}    # also bob, carol (developers), olga (operators), mallory
its machine:   {enter} bash
               in there `ip netns list` shows the pods; `ip netns exec NAME curl …` asks from one of them
the laptop:    {laptop}
               hairpin run --env alice --target deployment/checkout -n shop -- python3 -m http.server 8000
logs:          {made.plane.folder}/*.log
"""


async def shop(made: Cluster) -> IstioMesh:
    """The shop of the tests, with hairpin installed for its developers."""
    await applications(made)
    await install(made)
    await made.client.apply(DEVELOPERS)
    return IstioMesh(made)


async def steer(mesh: IstioMesh) -> None:
    """One session, and who answers whom."""
    async with mesh.laptop("alice", "alice") as run:
        for environment in ("alice", None):
            answer = await mesh.ask(environment)
            print(f"frontend asks checkout with x-env: {environment or '(none)'}: {answer['who']} answers", flush=True)
        print("", *run.errors, sep="\n")


async def serve(*, applications: bool, once: bool) -> None:
    """Brings it up, describes it, waits for the end."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with cluster(say=lambda text: print(f"… {text}", file=sys.stderr)) as made:
        print(describe(made), flush=True)
        if applications:
            mesh = await shop(made)
            print("The applications are up, and hairpin is installed for them.", flush=True)
            if once:
                await steer(mesh)
        if not once:
            await stop.wait()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.cluster", description=__doc__)
    parser.add_argument(
        "--bare", action="store_true", help="without the applications of tests/istio/apps, and without hairpin"
    )
    parser.add_argument("--once", action="store_true", help="steer one request to a laptop, and end")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(serve(applications=not arguments.bare, once=arguments.once))
        except MissingError as e:
            sys.exit(str(e))


if __name__ == "__main__":
    main()
