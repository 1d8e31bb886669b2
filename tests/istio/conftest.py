"""A real API server, and a real mesh, one of each for the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.cluster.api_server import ApiServer
from tests.support.cluster.api_server import api_server as running_api_server
from tests.support.cluster.binaries import MissingError

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("istio")


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
