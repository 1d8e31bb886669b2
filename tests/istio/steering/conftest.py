"""hairpin, installed by its own command in the mesh under test, with the shop and developers who may hold sessions there."""

from __future__ import annotations

import pytest

from tests.support.istio_mesh import SHOP, IstioMesh, install, operator

DEVELOPERS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "developers", "namespace": SHOP},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "hairpin-developer"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "developers"}],
}


@pytest.fixture(scope="session")
async def mesh(shop):
    """The shop (a fixture of the mesh's) with hairpin installed for it, and the plumbing in place where tests steer."""
    await install(shop)
    await shop.client.apply(DEVELOPERS)
    for target in ("checkout:http", "checkout:grpc", "inventory"):
        await operator(shop, "enable", target, "-n", SHOP)
    return IstioMesh(shop)
