"""One mesh for each module of end-to-end tests."""

from __future__ import annotations

import pytest

from tests.support.mesh import echo_mesh, running_mesh


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    async with running_mesh(echo_mesh(), tmp_path_factory.mktemp("mesh")) as running:
        yield running
