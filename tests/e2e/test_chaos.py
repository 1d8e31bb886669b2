"""Each part of a mesh is killed or frozen under load, once or twice; `make chaos` does it more often and judges times too."""

from __future__ import annotations

import pytest

from bench.chaos.faults import FAULTS
from bench.chaos.measure import repetition, result_of
from bench.chaos.mesh import chaos_mesh
from bench.chaos.records import Kind

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(180)]

SLACK = 10.0
"""Counts are what is judged here, beside other tests; how long it takes is `make chaos`' to say."""
SHORT = [fault for fault in FAULTS if fault.name != "sleep"]  # that one takes as long as a lease


@pytest.fixture(scope="module")
async def chaos(tmp_path_factory):
    async with chaos_mesh(tmp_path_factory.mktemp("chaos")) as mesh:
        yield mesh


@pytest.mark.parametrize("fault", SHORT, ids=lambda fault: fault.name)
async def test_nobody_notices(chaos, fault):
    result = result_of(fault)
    await repetition(chaos, fault, result)
    assert result.complaints(slack=SLACK) == []
    counts = result.counts
    assert all(counts.sent[kind] > 0 for kind in Kind)
    assert counts.by_cluster[Kind.GET] + counts.cut[Kind.GET] + counts.refused[Kind.POST] > 0  # the laptop was away
    assert fault.name != "no-tunnel" or result.no_tunnel > 0
