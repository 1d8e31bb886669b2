"""The controller's objects, in a namespace of its own."""

from __future__ import annotations

from typing import Any

from hairpin.kubernetes import pods
from hairpin.kubernetes.installation import (
    API_PORT,
    CONTROLLER,
    NAME,
    SYSTEM,
    XDS_PORT,
    Installation,
    metadata,
)
from hairpin.model.mesh import AGENT
from hairpin.model.routing_key_json import routing_key_to_json

JsonObject = dict[str, Any]

_FILE = "controller.yaml"
_SELECTOR = pods.labels(CONTROLLER, "controller")


def controller_objects(installation: Installation) -> list[JsonObject]:
    """Settings, Deployment, Service, and what guards them."""
    settings = pods.settings_text(controller_settings(installation))
    ports = [
        {"name": "https-api", "port": API_PORT, "targetPort": "https-api"},
        {"name": "tls-xds", "port": XDS_PORT, "targetPort": "tls-xds"},
    ]
    return [
        pods.service_account(CONTROLLER, SYSTEM),
        pods.config_map(CONTROLLER, SYSTEM, {_FILE: settings}),
        pods.service(CONTROLLER, SYSTEM, _SELECTOR, ports),
        _deployment(installation, settings),
        pods.disruption_budget(CONTROLLER, SYSTEM, _SELECTOR),
        _network_policy(installation),
        _destination_rule(installation),
    ]


def system_namespace() -> JsonObject:
    """The controller's namespace: not in the mesh, and for restricted pods alone."""
    restricted = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    more = {**restricted, "istio-injection": "disabled"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata(SYSTEM, labels=more)}


def controller_settings(installation: Installation) -> JsonObject:
    """What `python -m xds_server --kubernetes` reads."""
    settings: JsonObject = {
        "namespaces": list(installation.namespaces),
        "trustDomain": installation.trust_domain,
        "clusterDomain": installation.cluster_domain,
        "rootNamespace": installation.root_namespace,
        "delivery": installation.delivery.value,
        "routingKey": routing_key_to_json(installation.routing_key),
    }
    if published := installation.published:
        address = {"host": published.host, "tunnelPort": published.tunnel_port, "egressPort": published.egress_port}
        settings["agents"] = {"published": address}
    return settings


def _deployment(installation: Installation, settings: str) -> JsonObject:
    probe = {"path": "/v1/version", "port": "https-api", "scheme": "HTTPS"}
    container = pods.container(
        "controller",
        installation.image,
        "xds_server --kubernetes",
        config=f"/etc/hairpin/{_FILE}",
        ports=[
            {"name": "https-api", "containerPort": API_PORT},
            {"name": "tls-xds", "containerPort": XDS_PORT},
        ],
        env=[
            pods.from_field("POD_NAME", "metadata.name"),
            pods.from_field("POD_NAMESPACE", "metadata.namespace"),
        ],
        readinessProbe={"httpGet": probe, "periodSeconds": 2, "timeoutSeconds": 2},
        livenessProbe={"httpGet": probe, "periodSeconds": 10, "timeoutSeconds": 5, "initialDelaySeconds": 10},
        resources={"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "1Gi"}},
        volumeMounts=[
            {"name": "settings", "mountPath": "/etc/hairpin", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 # the container's own
            {"name": "run", "mountPath": "/run/hairpin"},
        ],
    )
    spec = {
        "serviceAccountName": CONTROLLER,
        "automountServiceAccountToken": True,
        "securityContext": pods.pod_security(),
        "affinity": pods.apart(_SELECTOR),
        "terminationGracePeriodSeconds": 15,
        "containers": [container],
        "volumes": [
            {"name": "settings", "configMap": {"name": CONTROLLER}},
            pods.empty("tmp", "64Mi"),
            pods.empty("run", "64Mi"),
        ],
    }
    annotations = {pods.SETTINGS: pods.digest(settings)}
    template = pods.template(_SELECTOR, annotations, {"sidecar.istio.io/inject": "false"}, spec)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(CONTROLLER, SYSTEM),
        "spec": {
            "replicas": installation.controllers,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": _SELECTOR},
            "template": template,
        },
    }


def _network_policy(installation: Installation) -> JsonObject:
    """Agents alone; the kubelet's probes come from the node, which no policy keeps out."""
    agents = {
        "namespaceSelector": {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(installation.namespaces)}
            ]
        },
        "podSelector": {"matchLabels": {NAME: AGENT}},
    }
    ports = [{"protocol": "TCP", "port": port} for port in (API_PORT, XDS_PORT)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(CONTROLLER, SYSTEM),
        "spec": {
            "podSelector": {"matchLabels": _SELECTOR},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [agents], "ports": ports}],
        },
    }


def _destination_rule(installation: Installation) -> JsonObject:
    """The controller has no sidecar and TLS of its own, whatever the mesh's default is."""
    policy = {"tls": {"mode": "DISABLE"}}
    return pods.destination_rule(CONTROLLER, SYSTEM, installation.cluster_domain, export_to="*", policy=policy)
