"""What an installation is: the operators' choices, and the names that everything else goes by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hairpin
from hairpin.errors import InvalidFieldError
from hairpin.model.delivery import Delivery
from hairpin.model.environment import RoutingKey
from hairpin.model.mesh import AGENT
from hairpin.model.names import LABEL, LONGEST

JsonObject = dict[str, Any]

SYSTEM = "hairpin-system"
"""The controller's namespace."""
CONTROLLER = "hairpin-controller"
DEVELOPER = "hairpin-developer"
"""The ClusterRole that operators bind, per namespace, to those who may hold sessions there."""
VIEWER = "hairpin-environment-viewer"
"""The ClusterRole that lets read Environments."""
TARGET_EXEC = "hairpin-target-exec"
"""The ClusterRole by which a target's environment and files are read in its container."""
TARGET_CONFIG = "hairpin-target-config"
"""The ClusterRole by which they are read from its spec, ConfigMaps and Secrets."""
AUTHORITY = "hairpin-ca"
"""The Secret with the CA's key, and in each served namespace the ConfigMap with its certificate."""
AUTHORITY_KEY = "ca.pem"
AUDIENCE = "hairpin"
"""Of agents' tokens."""
PART_OF = "app.kubernetes.io/part-of"
NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
OURS = {PART_OF: "hairpin"}
"""The label of everything that is ours."""

API_PORT, XDS_PORT = 9100, 9101
STEER_PORT, TUNNEL_PORT, EGRESS_PORT, READY_PORT = 8080, 9443, 9444, 9445
USER = 65532
"""Of the containers; no root."""
MOST_REPLICAS = 10
"""Of an agent: the developers' role names each of its pods."""


@dataclass(frozen=True, slots=True)
class Published:
    """Where laptops reach agents. `{pod}` and `{namespace}` in the host are replaced."""

    host: str
    tunnel_port: int = TUNNEL_PORT
    egress_port: int = EGRESS_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The operators' choices."""

    namespaces: tuple[str, ...]
    """Whose workloads may be steered."""
    image: str = f"hairpin:{hairpin.__version__}"
    identities: tuple[str, ...] = ()
    """Service accounts, the same in each namespace, under which agents serve egress: sessions may have their identity."""
    agents: int = 2
    """Replicas of each agent."""
    controllers: int = 2
    published: Published | None = None
    """None: laptops come through the API server's port-forward."""
    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    routing_key: RoutingKey = field(default_factory=RoutingKey)
    delivery: Delivery = Delivery.INBOUND

    @property
    def controller_host(self) -> str:
        """The name by which agents reach the controller. It is short: search domains complete it in every cluster."""
        return f"{CONTROLLER}.{SYSTEM}.svc"


def check_installation(installation: Installation) -> Installation:
    """The installation, if it can be one.

    Raises:
        InvalidFieldError: a choice can't be used.
    """
    for namespace in installation.namespaces:
        LABEL.read(namespace, "--namespace")
        if namespace in (SYSTEM, installation.root_namespace):
            problem = "is no namespace of applications"
            raise InvalidFieldError(
                "--namespace", namespace, problem, "name those whose workloads developers take over"
            )
    if len(set(installation.namespaces)) != len(installation.namespaces):
        raise InvalidFieldError("--namespace", None, "is given twice for one namespace", "name each once")
    for account in installation.identities:
        name = identity_agent(LABEL.read(account, "--identity"))
        # A pod's host name has the replica's number behind it.
        if len(name) > LONGEST - 2:
            raise InvalidFieldError("--identity", account, "is too long for a pod's name", "use a shorter account")
    if not 1 <= installation.agents <= MOST_REPLICAS:
        raise InvalidFieldError("--agents", installation.agents, "is out of range", f"use 1 to {MOST_REPLICAS}")
    if installation.controllers < 1:
        raise InvalidFieldError("--controllers", installation.controllers, "is out of range", "use 1 at least")
    if installation.published is not None:
        _check_published(installation, installation.published.host)
    return installation


def _check_published(installation: Installation, host: str) -> None:
    """A laptop dials each pod by itself: one address that leads to any of several would have it meet the wrong one."""
    flag = "--published-address"
    if "{pod}" not in host and (installation.agents > 1 or installation.identities):
        remedy = "write {pod} into it, and have a name for each; or use --agents 1, and no --identity"
        raise InvalidFieldError(flag, host, "is one address for several pods", remedy)
    if "{namespace}" not in host and len(installation.namespaces) > 1:
        remedy = "write {namespace} into it too: an agent's pods have the same names in each"
        raise InvalidFieldError(flag, host, "is one address for the pods of several namespaces", remedy)


def identity_agent(account: str) -> str:
    """The name of the agent that serves egress under a service account."""
    return f"{AGENT}-as-{account}"


def metadata(name: str, namespace: str = "", *, component: str = "", labels: JsonObject | None = None) -> JsonObject:
    """An object's metadata, labelled as ours."""
    found: JsonObject = {"name": name}
    if namespace:
        found["namespace"] = namespace
    return {**found, "labels": {**OURS, **({COMPONENT: component} if component else {}), **(labels or {})}}
