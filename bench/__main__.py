"""`make bench`: what hairpin costs, as ratios against the baseline of the same run, interleaved.

    python -m bench [--rounds 7] [--seconds 3] [--only paths,mirror,attach,fanout,version,intercept] [--json FILE]

The baseline is a request from a caller's sidecar to a service whose sidecar has nothing of hairpin. Everything runs on this
machine and shares its cores, so absolute numbers say little and ratios much; each is the median of all rounds with the
spread between the quartiles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from pathlib import Path
from typing import Any

from bench import attach, intercept, mirror, paths, table
from hairpin.errors import HairpinError

PARTS = ("paths", "mirror", "attach", "fanout", "version", "intercept")


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All parts that were asked for."""
    result: dict[str, Any] = {"machine": {"cores": table.cores(), "platform": platform.platform()}}
    if "paths" in arguments.only:
        result["paths"] = await paths.measure(arguments.rounds, arguments.seconds)
        sys.stdout.write(table.paths(result["paths"]))
    if "mirror" in arguments.only:
        result["mirror"] = await mirror.measure(arguments.rounds, arguments.seconds)
        sys.stdout.write(mirror.text(result["mirror"]))
    if "attach" in arguments.only:
        result["attach"] = await attach.measure(arguments.rounds)
        sys.stdout.write(table.times("attach", result["attach"]))
    if "version" in arguments.only:
        result["version"] = await attach.version(max(20, arguments.rounds))
        sys.stdout.write(table.times("hairpin --version", result["version"]))
    if "intercept" in arguments.only:
        result["intercept"] = await intercept.measure(arguments.rounds)
        sys.stdout.write(intercept.text(result["intercept"]))
    return result


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds over all paths (default 7)")
    parser.add_argument("--seconds", type=int, default=3, help="whole seconds of load per path and round (default 3)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--json", type=Path, default=Path("bench/results/latest.json"), help="where the numbers go")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: known are {', '.join(PARTS)}")
    try:
        result = asyncio.run(measure(arguments))
        if "fanout" in arguments.only:  # its own loop: grpc.aio wants one per process
            from bench import xds_fanout  # noqa: PLC0415

            result["fanout"] = xds_fanout.measure()
    except HairpinError as error:
        sys.stderr.write(f"bench: {error}\n")
        return error.exit_code
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1))
    sys.stdout.write(f"\nnumbers: {arguments.json}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
