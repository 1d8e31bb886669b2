"""Who may do what: the developers' role, and the controller's, which reaches into served namespaces alone."""

from __future__ import annotations

from typing import Any

from hairpin.kubernetes.admission import POLICY
from hairpin.kubernetes.installation import (
    AUTHORITY,
    CONTROLLER,
    DEVELOPER,
    MOST_REPLICAS,
    SYSTEM,
    TARGET_CONFIG,
    TARGET_EXEC,
    VIEWER,
    Installation,
    identity_agent,
    metadata,
)
from hairpin.kubernetes.kinds import DELIVERED, EGRESS_POLICIES, ENVIRONMENTS, ENVOY_FILTERS, SESSIONS
from hairpin.model.delivery import Delivery
from hairpin.model.mesh import AGENT

JsonObject = dict[str, Any]

_API = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_GROUP = SESSIONS.group
DEFINITIONS = [f"{kind.plural}.{kind.group}" for kind in (SESSIONS, ENVIRONMENTS, EGRESS_POLICIES)]
"""The CRDs' names."""


def developer_role(installation: Installation) -> JsonObject:
    """A ClusterRole: sessions, and the way to the agents' pods.

    Bound by a RoleBinding, as it should be, it can't give Environments, which are in no namespace: that is the viewer's role.
    """
    rules = [
        _rule(_GROUP, ["sessions"], [*_READ, "create", "update", "patch", "delete"]),
        _rule(_GROUP, ["environments"], _READ),
        _rule(_GROUP, ["egresspolicies"], _READ),
    ]
    if installation.published is None:
        agents = [AGENT, *map(identity_agent, installation.identities)]
        pods = [f"{agent}-{number}" for agent in agents for number in range(MOST_REPLICAS)]
        rules += [
            _rule("", ["pods"], ["get"], names=pods),
            # Over a WebSocket, a GET, the API server asks for `get` too.
            _rule("", ["pods/portforward"], ["create", "get"], names=pods),
        ]
    return _role("ClusterRole", DEVELOPER, "", rules)


def environment_viewer() -> JsonObject:
    """A ClusterRole for a ClusterRoleBinding: environments may have members and descriptions, so nobody is bound to it here."""
    return _role("ClusterRole", VIEWER, "", [_rule(_GROUP, ["environments"], _READ)])


def target_roles() -> list[JsonObject]:
    """ClusterRoles for whose processes may have a target's environment and files. Nobody is bound to them here.

    One execs in any pod of the namespace, and so may all that its pods may; the other reads all of its ConfigMaps and Secrets.
    Neither makes tokens: `serviceaccounts/token` of an account is the right to be it, for an operator to give by name.
    """
    look = [
        _rule("", ["pods"], ["get", "list"]),
        _rule("", ["services"], ["get", "list"]),
        _rule("apps", ["deployments", "statefulsets", "daemonsets"], ["get"]),
        _rule("argoproj.io", ["rollouts"], ["get"]),
    ]
    return [
        # Over a WebSocket, a GET, API servers have asked for `get`, `create`, or both.
        _role("ClusterRole", TARGET_EXEC, "", [*look, _rule("", ["pods/exec"], ["create", "get"])]),
        _role("ClusterRole", TARGET_CONFIG, "", [*look, _rule("", ["configmaps", "secrets"], ["get"])]),
    ]


def controller_roles(installation: Installation) -> list[JsonObject]:
    """What the controller may do in the whole cluster, in its own namespace and in the mesh's root namespace."""
    policies = ["validatingadmissionpolicies", "validatingadmissionpolicybindings"]
    cluster = [
        _rule(_GROUP, ["environments"], _READ),
        _rule("authentication.k8s.io", ["tokenreviews"], ["create"]),
        _rule("apiextensions.k8s.io", ["customresourcedefinitions"], _READ, names=DEFINITIONS),
        _rule("admissionregistration.k8s.io", policies, _READ, names=[POLICY]),
    ]
    own = [
        # What does not exist yet has no name to the API server.
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], [*_READ, "update", "patch"], names=[CONTROLLER]),
        _rule("", ["secrets"], ["create"]),
        _rule("", ["secrets"], [*_READ, "update", "patch"], names=[AUTHORITY]),
    ]
    root = [
        _rule("networking.istio.io", ["envoyfilters", "sidecars"], _READ),
        # istiod's own, which may be told to ignore what we write.
        _rule("apps", ["deployments"], _READ),
    ]
    return [
        _role("ClusterRole", CONTROLLER, "", cluster),
        _bound("ClusterRoleBinding", ""),
        _role("Role", CONTROLLER, SYSTEM, own),
        _bound("RoleBinding", SYSTEM),
        _role("Role", CONTROLLER, installation.root_namespace, root),
        _bound("RoleBinding", installation.root_namespace),
    ]


def served_roles(namespace: str, delivery: Delivery = Delivery.INBOUND) -> list[JsonObject]:
    """What the controller may do in a served namespace."""
    written = DELIVERED[delivery]
    write = ["create", "update", "patch", "delete"]
    rules = [
        # Who may deletecollection is one whom the admission policy lets end others' sessions.
        _rule(_GROUP, ["sessions"], [*_READ, "patch", "delete", "deletecollection"]),
        _rule(_GROUP, ["sessions/status"], ["get", "update", "patch"]),
        _rule(_GROUP, ["egresspolicies"], _READ),
        _rule("networking.istio.io", ["envoyfilters"], [*_READ, *(write if written is ENVOY_FILTERS else [])]),
        _rule("networking.istio.io", ["sidecars"], _READ),
        _rule("", ["pods", "services"], _READ),
        _rule("apps", ["deployments", "statefulsets", "daemonsets", "replicasets"], _READ),
        _rule("argoproj.io", ["rollouts"], _READ),
        _rule("", ["configmaps"], [*_READ, "create", "update", "patch"], names=[AUTHORITY]),
    ]
    if written is not ENVOY_FILTERS:
        rules.append(_rule(written.group, [written.plural], [*_READ, *write]))
    return [_role("Role", CONTROLLER, namespace, rules), _bound("RoleBinding", namespace)]


def _rule(group: str, resources: list[str], verbs: list[str], *, names: list[str] | None = None) -> JsonObject:
    rule: JsonObject = {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
    return {**rule, "resourceNames": list(names)} if names else rule


def _role(kind: str, name: str, namespace: str, rules: list[JsonObject]) -> JsonObject:
    return {"apiVersion": f"{_API}/v1", "kind": kind, "metadata": metadata(name, namespace), "rules": rules}


def _bound(kind: str, namespace: str) -> JsonObject:
    """The controller's role of this scope, bound to it."""
    role = "ClusterRole" if kind == "ClusterRoleBinding" else "Role"
    return {
        "apiVersion": f"{_API}/v1",
        "kind": kind,
        "metadata": metadata(CONTROLLER, namespace),
        "roleRef": {"apiGroup": _API, "kind": role, "name": CONTROLLER},
        "subjects": [{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": SYSTEM}],
    }
