"""Istio as its chart would install it: mesh settings, the injection template from its own source, the webhook, STRICT mTLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster.client import Object

NAMESPACE = "istio-system"
WEBHOOK_PORT = 15017

_CHART = Path("manifests/charts/istio-control/istio-discovery")
_TEMPLATES = {"sidecar": "injection-template.yaml", "gateway": "gateway-injection-template.yaml"}

MESH = {
    "accessLogFile": "/dev/stdout",
    "trustDomain": "cluster.local",
    "rootNamespace": NAMESPACE,
    "enableTracing": False,
    "enablePrometheusMerge": True,
    "defaultConfig": {
        "discoveryAddress": f"istiod.{NAMESPACE}.svc:15012",
        "concurrency": 1,
        "drainDuration": "5s",
    },
}
"""meshConfig. One worker for each sidecar: a dozen of them share two cores. A changed listener's connections drain for 5 s
instead of 45: so long those that were open before are not steered."""

ENVIRONMENT = {
    "POD_NAME": "istiod-0",
    "POD_NAMESPACE": NAMESPACE,
    "CLUSTER_ID": "Kubernetes",
    "REVISION": "default",
    "PILOT_CERT_PROVIDER": "istiod",
    # The first two leave out extensions that only Istio's own build of Envoy has.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_DEBOUNCE_AFTER": "10ms",
    "INJECTION_WEBHOOK_CONFIG_NAME": "istio-sidecar-injector",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
}


def arguments(kubeconfig: Path, folder: Path, address: str) -> list[str]:
    """pilot-discovery's, with the mesh's settings written into the folder."""
    settings = folder / "mesh.yaml"
    settings.write_text(yaml.safe_dump(MESH))
    return [
        "discovery",
        f"--kubeconfig={kubeconfig}",
        f"--meshConfig={settings}",
        "--networksConfig=none",
        "--domain=cluster.local",
        f"--httpAddr={address}:8080",
        f"--httpsAddr={address}:{WEBHOOK_PORT}",
        f"--grpcAddr={address}:15010",
        f"--secureGRPCAddr={address}:15012",
        f"--monitoringAddr={address}:15014",
        "--ctrlz_port=0",
    ]


def objects(source: Path, address: str) -> list[Object]:
    """What must be there before istiod starts."""
    ports = {"grpc-xds": 15010, "https-dns": 15012, "https-webhook": WEBHOOK_PORT, "http-monitoring": 15014}
    service_ports = [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports.items()]
    service_ports[2] |= {"port": 443, "targetPort": WEBHOOK_PORT}
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _named("istiod", labels={"kubernetes.io/service-name": "istiod"}),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports.items()],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Service", "metadata": _named("istiod"), "spec": {"ports": service_ports}},
        slice_,
        _injection(source),
        _webhook(),
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": _named("default"),
            "spec": {"mtls": {"mode": "STRICT"}},
        },
    ]


def _injection(source: Path) -> Object:
    chart = source / _CHART
    values = yaml.safe_load((chart / "values.yaml").read_text())["_internal_defaults_do_not_set"]
    values["global"]["hub"] = "docker.io/istio"
    values["global"]["tag"] = "test"
    kept = {name: values[name] for name in ("global", "sidecarInjectorWebhook", "revision")}
    kept["pilot"] = {"cni": values["cni"], "env": values["env"]}
    kept["gateways"] = {name: values["gateways"][name] for name in ("securityContext", "seccompProfile")}
    config: dict[str, Any] = {
        "defaultTemplates": ["sidecar"],
        "policy": "enabled",
        "alwaysInjectSelector": [],
        "neverInjectSelector": [],
        "injectedAnnotations": {},
        "template": "{{ Template_Version_And_Istio_Version_Mismatched_Check_Installation }}",
        "templates": {name: (chart / "files" / file).read_text() for name, file in _TEMPLATES.items()},
    }
    data = {"values": json.dumps(kept), "config": yaml.safe_dump(config)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named("istio-sidecar-injector"), "data": data}


def _webhook() -> Object:
    """Namespaces labelled `istio-injection: enabled`, pods labelled `sidecar.istio.io/inject: "true"`, as the chart has it."""
    namespace = {"matchExpressions": [{"key": "istio-injection", "operator": "In", "values": ["enabled"]}]}
    not_disabled = {"matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]}
    no_label = {"matchExpressions": [{"key": "istio-injection", "operator": "DoesNotExist"}]}
    enabled = {"matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "In", "values": ["true"]}]}
    service = {"name": "istiod", "namespace": NAMESPACE, "path": "/inject", "port": 443}

    def webhook(prefix: str, namespaces: Object, pods: Object) -> Object:
        return {
            "name": f"{prefix}.sidecar-injector.istio.io",
            "clientConfig": {"service": service},
            "sideEffects": "None",
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "failurePolicy": "Fail",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": namespaces,
            "objectSelector": pods,
        }

    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": "istio-sidecar-injector",
            "labels": {"istio.io/rev": "default", "app": "sidecar-injector"},
        },
        "webhooks": [webhook("namespace", namespace, not_disabled), webhook("object", no_label, enabled)],
    }


def _named(name: str, **more: Any) -> Object:
    return {"name": name, "namespace": NAMESPACE, **more}
