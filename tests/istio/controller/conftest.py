"""An API server of its own, since an admission policy holds for everyone: hairpin installed, nothing of it running."""

from __future__ import annotations

import pytest

from tests.support.builds import MissingError
from tests.support.cluster.api_server import api_server as running_api_server
from tests.support.controller import FakeAgent, Laptop, controller_api, install, serve_namespace, workload

ADMIN = "admin"


@pytest.fixture(scope="package")
async def installed():
    try:
        async with running_api_server() as server:
            await install(server)
            yield server
    except MissingError as e:
        pytest.skip(str(e))


@pytest.fixture
async def api(installed):
    """As the controller's service account."""
    async with controller_api(installed) as api:
        yield api


@pytest.fixture
async def shop(installed):
    """A namespace with checkout, served."""
    name = await installed.new_namespace()
    await serve_namespace(installed, name)
    await workload(installed, name, "checkout")
    yield name
    await installed.client.delete("Namespace", name)


@pytest.fixture
def laptop(installed, shop):
    return Laptop(installed.client, shop, ADMIN)


@pytest.fixture
def agent(installed, shop):
    return FakeAgent(installed, shop)
