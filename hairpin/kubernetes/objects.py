"""All objects of an installation, in the order to apply them: the one source of `hairpin install` and of manifests/."""

from __future__ import annotations

from typing import Any

from hairpin.kubernetes.admission import admission_objects
from hairpin.kubernetes.agents import agent_objects
from hairpin.kubernetes.controller import controller_objects, system_namespace
from hairpin.kubernetes.crds import custom_resource_definitions
from hairpin.kubernetes.installation import Installation
from hairpin.kubernetes.rbac import controller_roles, developer_role, environment_viewer, served_roles, target_roles

JsonObject = dict[str, Any]


def installation_objects(installation: Installation) -> list[JsonObject]:
    """Every object."""
    objects = cluster_objects(installation)
    for namespace in installation.namespaces:
        objects += namespace_objects(installation, namespace)
    return objects


def cluster_objects(installation: Installation) -> list[JsonObject]:
    """What there is once: definitions, admission, roles, the controller."""
    return [
        system_namespace(),
        *custom_resource_definitions(),
        *admission_objects(),
        developer_role(installation),
        environment_viewer(),
        *target_roles(),
        *controller_roles(installation),
        *controller_objects(installation),
    ]


def namespace_objects(installation: Installation, namespace: str) -> list[JsonObject]:
    """What there is in each served namespace."""
    return [*served_roles(namespace, installation.delivery), *agent_objects(installation, namespace)]
