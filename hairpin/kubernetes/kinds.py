"""The kinds of objects that hairpin deals with, by where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from hairpin.model.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object. `group` is empty for the core."""

    group: str
    version: str
    plural: str
    name: str
    """As `kind` has it."""
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As `apiVersion` has it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of its objects, or of one of them."""
        parts = ["namespaces", namespace] if namespace and self.namespaced else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join([self.root, *(quote(part, safe="") for part in parts)])


SESSIONS = Kind("hairpin.dev", "v1alpha1", "sessions", "Session")
ENVIRONMENTS = Kind("hairpin.dev", "v1alpha1", "environments", "Environment", namespaced=False)
EGRESS_POLICIES = Kind("hairpin.dev", "v1alpha1", "egresspolicies", "EgressPolicy")

ENVOY_FILTERS = Kind("networking.istio.io", "v1alpha3", "envoyfilters", "EnvoyFilter")

SIDECARS = Kind("networking.istio.io", "v1", "sidecars", "Sidecar")

HTTP_ROUTES = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
VIRTUAL_SERVICES = Kind("networking.istio.io", "v1", "virtualservices", "VirtualService")
DELIVERED = {
    Delivery.INBOUND: ENVOY_FILTERS,
    Delivery.OUTBOUND: ENVOY_FILTERS,
    Delivery.WAYPOINT_HTTP_ROUTE: HTTP_ROUTES,
    Delivery.WAYPOINT_VIRTUAL_SERVICE: VIRTUAL_SERVICES,
}
"""What each delivery writes."""

NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
PODS = Kind("", "v1", "pods", "Pod")
SERVICES = Kind("", "v1", "services", "Service")
SERVICE_ACCOUNTS = Kind("", "v1", "serviceaccounts", "ServiceAccount")
SECRETS = Kind("", "v1", "secrets", "Secret")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
DEPLOYMENTS = Kind("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = Kind("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = Kind("apps", "v1", "daemonsets", "DaemonSet")
REPLICA_SETS = Kind("apps", "v1", "replicasets", "ReplicaSet")
ROLLOUTS = Kind("argoproj.io", "v1alpha1", "rollouts", "Rollout")
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
SELF_SUBJECT_REVIEWS = Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
SELF_SUBJECT_ACCESS_REVIEWS = Kind(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
CUSTOM_RESOURCE_DEFINITIONS = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
ADMISSION_POLICIES = Kind(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
ADMISSION_POLICY_BINDINGS = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
