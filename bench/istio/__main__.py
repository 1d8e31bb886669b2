"""`make bench-istio`: what hairpin costs in a real Istio mesh, as ratios against the baseline of the same run, interleaved.

    python -m bench.istio [--rounds 7] [--seconds 3] [--only start,delivery,forward,paths] [--json FILE]

The baseline is a request from a pod, through its sidecar, to a workload whose sidecar is as Istio makes it. The whole mesh, the
laptops and the load share this machine's cores: absolute numbers say little, ratios much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from pathlib import Path
from typing import Any

from bench import portforward, table
from bench.istio import delivery, paths, start
from bench.istio.mesh import istio_bench
from hairpin.errors import HairpinError
from tests.support.builds import MissingError

PARTS = ("start", "delivery", "forward", "paths")
FIRST_USES = 3


async def measure(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """All parts that were asked for, each printed when it is there."""
    async with istio_bench(*arguments.install) as bench:
        if "start" in arguments.only:
            first_uses = min(FIRST_USES, arguments.rounds)
            result["start"] = await start.measure(bench, arguments.rounds, first_uses)
            _print(start.table(result["start"]))
        if "delivery" in arguments.only:
            result["delivery"] = await delivery.measure(bench, 3 * arguments.rounds)
            _print(table.times("an EnvoyFilter", result["delivery"]))
        if "forward" in arguments.only:
            result["forward"] = await portforward.measure(bench.cluster, arguments.rounds)
            _print(portforward.table(result["forward"]))
        if "paths" in arguments.only:
            result["paths"] = await paths.measure(bench, arguments.rounds, arguments.seconds)
            _print(table.paths(result["paths"]))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.istio", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="of each part (default 7)")
    parser.add_argument("--seconds", type=int, default=3, help="whole seconds of load per path and round (default 3)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--install", type=str.split, default=[], metavar="FLAGS", help="flags of `hairpin install`")
    parser.add_argument("--json", type=Path, default=Path("bench/results/istio.json"), help="where the numbers go")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: known are {', '.join(PARTS)}")
    result: dict[str, Any] = {"machine": {"cores": table.cores(), "platform": platform.platform()}}
    try:
        asyncio.run(measure(arguments, result))
    except (HairpinError, MissingError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return error.exit_code if isinstance(error, HairpinError) else 1
    finally:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1))
    sys.stdout.write(f"\nnumbers: {arguments.json}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
