"""What all tests in a real mesh have in common; the mesh itself is in tests/support/cluster/fixtures.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.cluster.api_server import ApiServer

HERE = Path(__file__).parent
SECONDS = 120


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("istio")
            if item.get_closest_marker("timeout") is None:
                # Of the test alone: the first one that wants a mesh may have to build it.
                item.add_marker(pytest.mark.timeout(SECONDS, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What the programs said is in the report of a test that failed."""
    report = yield
    if report.failed:
        for name in ("cluster", "api_server"):
            server = item.funcargs.get(name) if hasattr(item, "funcargs") else None
            if server is not None:
                report.sections.append((f"programs of {name}", server.programs.tails()))
    return report


@pytest.fixture
async def namespace(api_server: ApiServer) -> AsyncIterator[str]:
    """A fresh namespace of the API server; deleted afterwards."""
    name = await api_server.new_namespace()
    yield name
    await api_server.client.delete("Namespace", name)
