"""Each part of a real mesh is killed or frozen under load, once; `make chaos-istio` does it more often."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from bench.chaos.measure import repetition, result_of, table
from bench.chaos.records import Kind
from bench.chaos_istio.faults import FAULTS
from bench.chaos_istio.mesh import chaos_mesh

pytestmark = [pytest.mark.timeout(300)]

SLACK = 10.0
"""Counts are what is judged here, beside other tests; how long it takes is `make chaos`' to say."""
UNNOTICED = {"istiod", "controller"}
"""Without them everything goes on as it was."""


@pytest.fixture(scope="module")
async def chaos(mesh):
    # Not pytest's own folder, which is root's alone: the applications are an ordinary user's.
    with tempfile.TemporaryDirectory(prefix="hairpin-chaos-") as folder:
        async with chaos_mesh(mesh.cluster, Path(folder)) as made:
            yield made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_nobody_notices(chaos, fault):
    result = result_of(fault)
    await repetition(chaos, fault, result)
    print(table([result]), *result.counts.errors.most_common(4), sep="\n")
    assert result.complaints(slack=SLACK) == []
    counts = result.counts
    assert all(counts.sent[kind] > 0 for kind in Kind)
    away = counts.by_cluster[Kind.GET] + counts.cut[Kind.GET] + counts.refused[Kind.POST]
    assert away > 0 or fault.name in UNNOTICED
