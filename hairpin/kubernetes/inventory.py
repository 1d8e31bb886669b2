"""What of hairpin's can be in a cluster, and how it is found."""

from __future__ import annotations

from typing import Any

from hairpin.kubernetes.api import Api
from hairpin.kubernetes.errors import ApiNotFoundError
from hairpin.kubernetes.installation import OURS
from hairpin.kubernetes.kinds import (
    CONFIG_MAPS,
    LEASES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    Kind,
)

JsonObject = dict[str, Any]

LABELS = ",".join(f"{name}={value}" for name, value in OURS.items())
"""The selector of what is ours."""
_RBAC = "rbac.authorization.k8s.io"
ROLES = Kind(_RBAC, "v1", "roles", "Role")
ROLE_BINDINGS = Kind(_RBAC, "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Kind(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Kind(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)

LABELLED = (
    STATEFUL_SETS,
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Kind("security.istio.io", "v1", "authorizationpolicies", "AuthorizationPolicy"),
    Kind("networking.istio.io", "v1", "destinationrules", "DestinationRule"),
    SERVICES,
    CONFIG_MAPS,
    SECRETS,
    LEASES,
    SERVICE_ACCOUNTS,
    ROLE_BINDINGS,
    ROLES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
)
"""What is found by its label, in the order in which it goes. The Deployment goes before, what people made beside."""


async def items(api: Api, kind: Kind, *, namespace: str = "", labels: str = "") -> list[JsonObject]:
    """The objects of a kind; none where the API server has no such kind."""
    try:
        found: list[JsonObject] = (await api.list(kind, namespace=namespace, labels=labels))["items"]
    except ApiNotFoundError:
        return []
    return found
