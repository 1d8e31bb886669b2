"""What the controller's and the agents' pods have in common: no root, no capabilities, nothing to write to but memory."""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

from hairpin.kubernetes.installation import COMPONENT, NAME, OURS, USER, metadata

JsonObject = dict[str, Any]

SETTINGS = "hairpin.dev/settings"
"""The annotation that a changed ConfigMap changes, so that its pods are made anew."""


def container(name: str, image: str, module: str, *, config: str, **more: Any) -> JsonObject:
    """A container of Pod Security's `restricted` that runs `python -m MODULE`."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [*module.split(), "--config", config],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
        },
        **more,
    }


def pod_security() -> JsonObject:
    """The pod's security context."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def empty(name: str, size: str) -> JsonObject:
    """A folder in memory, for what a restart may lose: keys and sockets."""
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def from_field(name: str, path: str) -> JsonObject:
    """An environment variable that says what the pod is."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def labels(name: str, component: str) -> JsonObject:
    """A workload's labels, which its selectors have too."""
    return {NAME: name, COMPONENT: component}


def apart(selector: JsonObject) -> JsonObject:
    """Rather on different nodes."""
    term = {"labelSelector": {"matchLabels": selector}, "topologyKey": "kubernetes.io/hostname"}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def template(selector: JsonObject, annotations: JsonObject, more_labels: JsonObject, spec: JsonObject) -> JsonObject:
    """A pod's template."""
    found: JsonObject = {"labels": {**OURS, **selector, **more_labels}, "annotations": annotations}
    return {"metadata": found, "spec": spec}


def settings_text(settings: JsonObject) -> str:
    """Settings as a ConfigMap has them."""
    return yaml.safe_dump(settings, sort_keys=False)


def digest(text: str) -> str:
    """What changes with a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_map(name: str, namespace: str, data: dict[str, str]) -> JsonObject:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name, namespace), "data": data}


def service_account(name: str, namespace: str) -> JsonObject:
    """A service account whose token no pod gets unasked."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, namespace),
        "automountServiceAccountToken": False,
    }


def service(name: str, namespace: str, selector: JsonObject, ports: list[JsonObject]) -> JsonObject:
    """A Service with an address of its own: Istio takes a headless one's pods as they call themselves, ready or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace),
        "spec": {"type": "ClusterIP", "selector": selector, "ports": ports},
    }


def disruption_budget(name: str, namespace: str, selector: JsonObject) -> JsonObject:
    """One at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, namespace),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
    }


def destination_rule(name: str, namespace: str, domain: str, *, export_to: str, policy: JsonObject) -> JsonObject:
    """How sidecars call a Service of ours.

    Args:
        name: the Service's, and the rule's.
        namespace: of both.
        domain: the cluster's.
        export_to: the namespaces whose sidecars are told: `.` is this one, `*` all.
        policy: the traffic policy.
    """
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": metadata(name, namespace),
        "spec": {
            "host": f"{name}.{namespace}.svc.{domain}",
            "exportTo": [export_to],
            "trafficPolicy": policy,
        },
    }
