"""A real API server, and a real mesh: one of each for the session, for whichever folder of tests asks.

tests/conftest.py imports them, so what they need is imported when they are first asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import MissingError

if TYPE_CHECKING:
    from tests.support.cluster.api_server import ApiServer
    from tests.support.cluster.mesh import Cluster


@pytest.fixture(scope="session")
async def api_server() -> AsyncIterator[ApiServer]:
    """etcd, kube-apiserver and kube-controller-manager on loopback, with RBAC; no node."""
    from tests.support.cluster.api_server import api_server as running

    try:
        async with running() as server:
            yield server
    except MissingError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A whole mesh, with Istio and no application."""
    from tests.support.cluster.mesh import cluster as running

    try:
        async with running() as made:
            yield made
    except MissingError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
async def shop(cluster: Cluster) -> Cluster:
    """The mesh with the applications of `tests/istio/apps`, ready, in the namespace `shop`."""
    from tests.support.istio_mesh import applications

    await applications(cluster)
    return cluster
