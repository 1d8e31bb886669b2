"""One mesh for each module of end-to-end tests."""

from __future__ import annotations

import pytest

from tests.support.mesh import echo_mesh, running_mesh


def pytest_collection_modifyitems(items):
    """What takes minutes comes last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory):
    async with running_mesh(echo_mesh(), tmp_path_factory.mktemp("mesh")) as running:
        yield running
