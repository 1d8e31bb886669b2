"""`make chaos`: kills and freezes each part of a mesh under load, and counts what callers saw.

    python -m bench.chaos [--repetitions 7] [--only laptop-envoy,cli,…] [--replicas 1] [--pause 0.01] [--json FILE]

16 connections send GETs without the environment's header, GETs with it and POSTs with it, each POST with a key of its own;
nothing is ever repeated by the caller. Ends with 1 if something failed that must not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from bench.chaos.faults import FAULTS, Fault, M
from bench.chaos.load import PAUSE_SECONDS
from bench.chaos.measure import Result, measure, result_of, silence, table
from bench.chaos.mesh import ChaosMesh, chaos_mesh
from hairpin.errors import HairpinError

OpenMesh = Callable[[argparse.Namespace, Path], AbstractAsyncContextManager[M]]
"""A mesh for these arguments, with its files in a folder."""


async def run(
    open_mesh: OpenMesh[M],
    faults: Sequence[Fault[M]],
    arguments: argparse.Namespace,
    folder: Path,
    results: list[Result],
) -> None:
    """The mesh, and all faults in it."""
    faults = [fault for fault in faults if fault.name in arguments.only]
    results += map(result_of, faults)
    async with open_mesh(arguments, folder) as mesh:
        await measure(
            mesh, faults, results, arguments.repetitions, lambda text: print(f"  {text}", file=sys.stderr, flush=True)
        )


def options(
    program: str, description: str | None, faults: Sequence[Fault[M]], *, repetitions: int, pause: float, file: str
) -> argparse.ArgumentParser:
    """The options that all meshes have, with these defaults."""
    known = [fault.name for fault in faults]
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=(description or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=repetitions, help=f"of each fault (default {repetitions})")
    pauses = f"seconds between two requests of a connection (default {pause:g})"
    parser.add_argument("--pause", type=float, default=pause, help=pauses)
    parser.add_argument("--only", type=lambda text: text.split(","), default=known, help=f"of {','.join(known)}")
    parser.add_argument("--json", type=Path, default=Path("bench/results", file), help="where the numbers go")
    parser.add_argument("--slack", type=float, default=1.0, help="times may be so many times as long (default 1)")
    parser.add_argument("--keep", type=Path, help="a folder for the mesh's files and logs, kept")
    return parser


def main() -> int:
    """The embedded mesh."""
    parser = options("bench.chaos", __doc__, FAULTS, repetitions=7, pause=PAUSE_SECONDS, file="chaos.json")
    parser.add_argument("--replicas", type=int, default=1, help="of the agent; the first is struck (default 1)")

    def open_mesh(arguments: argparse.Namespace, folder: Path) -> AbstractAsyncContextManager[ChaosMesh]:
        return chaos_mesh(folder, replicas=arguments.replicas, pause=arguments.pause)

    return measured(parser, open_mesh, FAULTS)


def measured(parser: argparse.ArgumentParser, open_mesh: OpenMesh[M], faults: Sequence[Fault[M]]) -> int:
    """Measure and print; the exit code."""
    known = [fault.name for fault in faults]
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(known):
        parser.error(f"--only: {', '.join(sorted(unknown))}: known are {', '.join(known)}")
    silence()
    results: list[Result] = []
    broken = False
    with tempfile.TemporaryDirectory(prefix="hairpin-chaos-") as name:
        try:
            asyncio.run(run(open_mesh, faults, arguments, arguments.keep or Path(name), results))
        except* HairpinError as group:
            broken = True
            sys.stderr.write(f"chaos: {_first(group)}\n")
    sys.stdout.write(table(results))
    for result in results:
        for error, count in result.counts.errors.most_common(4):
            sys.stdout.write(f"  {result.what}: {count} × {error}\n")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({result.name: result.to_json() for result in results}, indent=1))
    complaints = [complaint for result in results for complaint in result.complaints(slack=arguments.slack)]
    for complaint in complaints:
        sys.stdout.write(f"NOT so: {complaint}\n")
    sys.stdout.write(f"\nnumbers: {arguments.json}\n")
    return 1 if complaints or broken else 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
