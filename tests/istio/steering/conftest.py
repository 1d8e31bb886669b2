"""hairpin, installed by its own command in the mesh under test, with the shop and developers who may hold sessions there."""

from __future__ import annotations

import pytest

from tests.support.istio_mesh import DEVELOPERS, IstioMesh, enable, install


@pytest.fixture(scope="session")
async def mesh(shop):
    """The shop (a fixture of the mesh's) with hairpin installed for it, and the plumbing in place where tests steer."""
    await install(shop)
    await shop.client.apply(DEVELOPERS)
    await enable(shop)
    return IstioMesh(shop)
