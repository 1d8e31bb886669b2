"""`hairpin run` as an ordinary user would, around the drivers of these tests."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from tests.laptop.results import Results, read
from tests.support.istio_mesh import IstioMesh
from tests.support.mesh import Run, TestMesh

INTERCEPT = ("--intercept", "on")
DRIVER = ("-m", "tests.laptop.driver")
SECONDS = 240.0
Case = dict[str, Any]


def unprivileged() -> tuple[str, ...]:
    """What to put before a command for it to have no capability, which root's would have: an ordinary user's, who owns these files."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--securebits=+noroot,+noroot_locked")


async def driven(
    mesh: TestMesh | IstioMesh, cases: list[Case], *flags: str, python: str, **more: Any
) -> tuple[Run, Results]:
    """All cases under one `hairpin run`: what it said, and what came of each.

    Args:
        mesh: where alice runs it.
        cases: what the driver is to do.
        flags: of `hairpin run`.
        python: the interpreter there.
        more: how `hairpin` is to be started there.
    """
    arguments = ["run", "--mode", "egress", *INTERCEPT, *flags, "--", python, *DRIVER, json.dumps(cases)]
    async with mesh.hairpin("alice", *arguments, **more) as run:
        await asyncio.wait_for(run.process.wait(), SECONDS)
        await run.ended()
    results = read(run.output)
    missing = {case["key"] for case in cases} - results.keys()
    assert not missing, "\n".join([f"{missing} did not run", *run.errors, *run.output])
    return run, results
