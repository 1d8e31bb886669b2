"""`make chaos-istio`: kills and freezes each part of a real Istio mesh with hairpin in it, under load.

    python -m bench.chaos_istio [--repetitions 3] [--only cli,agent,…] [--pause 0.05] [--json FILE]

Load, counts and what must hold are those of `bench.chaos`. The mesh is that of the tests, so it needs what they need.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.chaos.__main__ import measured, options
from bench.chaos_istio.faults import FAULTS
from bench.chaos_istio.mesh import PAUSE_SECONDS, IstioChaosMesh, chaos_mesh
from hairpin.errors import HairpinError
from tests.support.builds import MissingError
from tests.support.cluster.mesh import cluster
from tests.support.istio_mesh import SHOP, install


@asynccontextmanager
async def mesh(arguments: argparse.Namespace, folder: Path) -> AsyncIterator[IstioChaosMesh]:
    """A mesh of its own, with hairpin installed by its own command."""
    try:
        async with cluster(say=lambda text: print(f"  {text}", file=sys.stderr, flush=True)) as made:
            labels = {"istio-injection": "enabled"}
            await made.client.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP, "labels": labels}}
            )
            await install(made)
            async with chaos_mesh(made, folder, pause=arguments.pause) as chaos:
                yield chaos
    except MissingError as error:
        raise HairpinError(str(error)) from error


def main() -> int:
    """Measure and print."""
    parser = options("bench.chaos_istio", __doc__, FAULTS, repetitions=3, pause=PAUSE_SECONDS, file="chaos-istio.json")
    return measured(parser, mesh, FAULTS)


if __name__ == "__main__":
    sys.exit(main())
