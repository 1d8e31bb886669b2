"""A real API server, and a real mesh, one of each for the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.builds import MissingError
from tests.support.cluster.api_server import ApiServer
from tests.support.cluster.api_server import api_server as running_api_server
from tests.support.cluster.mesh import Cluster
from tests.support.cluster.mesh import cluster as running_cluster
from tests.support.istio_mesh import applications

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


@pytest.fixture(scope="session")
async def api_server() -> AsyncIterator[ApiServer]:
    """etcd, kube-apiserver and kube-controller-manager on loopback, with RBAC; no node."""
    try:
        async with running_api_server() as server:
            yield server
    except MissingError as e:
        pytest.skip(str(e))


@pytest.fixture
async def namespace(api_server: ApiServer) -> AsyncIterator[str]:
    """A fresh namespace of the API server; deleted afterwards."""
    name = await api_server.new_namespace()
    yield name
    await api_server.client.delete("Namespace", name)


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A whole mesh, with Istio and no application."""
    try:
        async with running_cluster() as made:
            yield made
    except MissingError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
async def shop(cluster: Cluster) -> Cluster:
    """The mesh with the applications of `apps/`, ready, in the namespace `shop`."""
    await applications(cluster)
    return cluster
