"""A served namespace's objects: the agent, those under other service accounts, and what guards them."""

from __future__ import annotations

from typing import Any

from hairpin.kubernetes import pods
from hairpin.kubernetes.installation import (
    API_PORT,
    AUDIENCE,
    AUTHORITY,
    AUTHORITY_KEY,
    EGRESS_PORT,
    READY_PORT,
    STEER_PORT,
    TUNNEL_PORT,
    XDS_PORT,
    Installation,
    identity_agent,
    metadata,
)
from hairpin.model.mesh import AGENT

JsonObject = dict[str, Any]

_FILE = "agent.yaml"
_STEER, _EGRESS = "steer", "egress"
_SELECTOR = pods.labels(AGENT, _STEER)
_DRAIN_SECONDS = 5
_TUNNELS_SECONDS = 5
"""In which laptops have noticed an agent that is ready, and connected: an Envoy tries every second."""
_SIDECAR_PORTS = (15020, 15021, 15090)
"""Where Istio's sidecar answers probes and is scraped."""


def agent_objects(installation: Installation, namespace: str) -> list[JsonObject]:
    """What a served namespace needs, beside the controller's role there."""
    settings = pods.settings_text(agent_settings(installation, _STEER))
    steer = {"name": "tcp-steer", "port": STEER_PORT, "targetPort": STEER_PORT, "appProtocol": "tcp"}
    objects = [
        # The controller fills it in.
        pods.config_map(AUTHORITY, namespace, {}),
        pods.service_account(AGENT, namespace),
        pods.config_map(AGENT, namespace, {_FILE: settings}),
        pods.service(AGENT, namespace, _SELECTOR, [steer]),
        _stateful_set(installation, namespace, AGENT, account=AGENT, settings=settings, selector=_SELECTOR),
        pods.disruption_budget(AGENT, namespace, _SELECTOR),
        _authorization_policy(namespace, AGENT, _SELECTOR),
        _destination_rule(installation, namespace),
        _network_policy(installation, namespace, AGENT, _SELECTOR),
    ]
    for account in installation.identities:
        objects += _identity_objects(installation, namespace, account)
    return objects


def agent_settings(installation: Installation, role: str) -> JsonObject:
    """What `python -m agent` reads; its name and namespace are the pod's."""
    listeners = {"egress": f"0.0.0.0:{EGRESS_PORT}", "ready": f"0.0.0.0:{READY_PORT}"}
    if role == _STEER:
        # The sidecar comes by the pod's address, not by loopback.
        listeners |= {"steer": f"0.0.0.0:{STEER_PORT}", "tunnel": f"0.0.0.0:{TUNNEL_PORT}"}
    return {
        "name": {"env": "POD_NAME"},
        "namespace": {"env": "POD_NAMESPACE"},
        "directory": "/run/hairpin/agent",
        "role": role,
        "controlPlane": {
            "api": f"https://{installation.controller_host}:{API_PORT}",
            "xds": f"{installation.controller_host}:{XDS_PORT}",
            "authority": f"/etc/hairpin/ca/{AUTHORITY_KEY}",
            "tokenFile": "/var/run/secrets/hairpin/token",
        },
        "listeners": listeners,
        # Laptops ask the agents for them: the controller takes none.
        "requestLog": {"report": False},
        "drainSeconds": _DRAIN_SECONDS,
    }


def _identity_objects(installation: Installation, namespace: str, account: str) -> list[JsonObject]:
    """An agent under another service account, for connections out alone: that it exists is the permission."""
    name = identity_agent(account)
    selector = pods.labels(AGENT, _EGRESS) | {"hairpin.dev/identity": account}
    settings = pods.settings_text(agent_settings(installation, _EGRESS))
    return [
        pods.config_map(name, namespace, {_FILE: settings}),
        # A StatefulSet needs a Service; nobody calls this one.
        pods.service(name, namespace, selector, [{"name": "tcp-egress", "port": EGRESS_PORT, "appProtocol": "tcp"}]),
        _stateful_set(installation, namespace, name, account=account, settings=settings, selector=selector),
        pods.disruption_budget(name, namespace, selector),
        _authorization_policy(namespace, name, selector),
        _network_policy(installation, namespace, name, selector),
    ]


def _stateful_set(
    installation: Installation,
    namespace: str,
    name: str,
    *,
    account: str,
    settings: str,
    selector: JsonObject,
) -> JsonObject:
    role = _STEER if name == AGENT else _EGRESS
    # Tunnels and laptops' connections bring TLS of their own; the sidecar must not ask for the mesh's.
    own_tls = [TUNNEL_PORT, EGRESS_PORT] if role == _STEER else [EGRESS_PORT]
    annotations = {
        "traffic.sidecar.istio.io/excludeInboundPorts": ",".join(map(str, own_tls)),
        pods.SETTINGS: pods.digest(settings),
    }
    spec = {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "securityContext": pods.pod_security(),
        "affinity": pods.apart(selector),
        "terminationGracePeriodSeconds": 30,
        "containers": [_container(installation.image, role)],
        "volumes": [
            {"name": "settings", "configMap": {"name": name}},
            {"name": "ca", "configMap": {"name": AUTHORITY}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": _token()}]}},
            pods.empty("run", "64Mi"),
            pods.empty("tmp", "64Mi"),
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(name, namespace),
        "spec": {
            "replicas": installation.agents,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            # A rollout goes on only when laptops have their tunnels to the new one.
            "minReadySeconds": _TUNNELS_SECONDS,
            "selector": {"matchLabels": selector},
            "template": pods.template(selector, annotations, {"sidecar.istio.io/inject": "true"}, spec),
        },
    }


def _token() -> JsonObject:
    return {"path": "token", "audience": AUDIENCE, "expirationSeconds": 3600}


def _container(image: str, role: str) -> JsonObject:
    listening = {_EGRESS: EGRESS_PORT, "ready": READY_PORT}
    if role == _STEER:
        listening |= {_STEER: STEER_PORT, "tunnel": TUNNEL_PORT}
    # The sidecar may take a while; until then there is no certificate.
    startup = {"httpGet": {"path": "/ready", "port": READY_PORT}, "periodSeconds": 1, "failureThreshold": 300}
    return pods.container(
        "agent",
        image,
        "agent",
        config=f"/etc/hairpin/agent/{_FILE}",
        ports=[{"name": name, "containerPort": port} for name, port in listening.items()],
        env=[
            pods.from_field("POD_NAME", "metadata.name"),
            pods.from_field("POD_NAMESPACE", "metadata.namespace"),
            pods.from_field("POD_IPS", "status.podIPs"),
            pods.from_field("HOST_IPS", "status.hostIPs"),
        ],
        startupProbe=startup,
        readinessProbe={"httpGet": {"path": "/ready", "port": READY_PORT}, "periodSeconds": 1, "failureThreshold": 1},
        resources={"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "1Gi"}},
        volumeMounts=[
            {"name": "settings", "mountPath": "/etc/hairpin/agent", "readOnly": True},
            {"name": "ca", "mountPath": "/etc/hairpin/ca", "readOnly": True},
            {"name": "token", "mountPath": "/var/run/secrets/hairpin", "readOnly": True},
            {"name": "run", "mountPath": "/run/hairpin"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 # the container's own
        ],
    )


def _authorization_policy(namespace: str, name: str, selector: JsonObject) -> JsonObject:
    """The namespace's own workloads may send what is steered: never changed, since that would drain steered streams.

    An agent that serves egress alone takes nothing from the mesh.
    """
    own = {"from": [{"source": {"namespaces": [namespace]}}], "to": [{"operation": {"ports": [str(STEER_PORT)]}}]}
    rules = [own] if name == AGENT else []
    # Without rules ALLOW allows nothing.
    spec: JsonObject = {"selector": {"matchLabels": selector}, "action": "ALLOW"}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": metadata(name, namespace),
        "spec": {**spec, **({"rules": rules} if rules else {})},
    }


def _destination_rule(installation: Installation, namespace: str) -> JsonObject:
    """Sidecars choose among the agents that are ready, wherever they are (docs/decisions/0031).

    Since Istio tells of pods that are not ready, too, unless `minHealthPercent` is set, a part of what is to be steered would
    go to the app. With outlier detection, which that belongs to, come priorities by locality, unless they are off; a
    repetition would then end at another zone's agent instead of the app. A rule of the mesh's own, for `*.local` say, has
    the same effects, and this one stands before it.
    """
    policy = {
        "loadBalancer": {"localityLbSetting": {"enabled": False}},
        # No agent is ejected: 0 is never.
        "outlierDetection": {"minHealthPercent": 1, "consecutive5xxErrors": 0, "consecutiveGatewayErrors": 0},
    }
    return pods.destination_rule(AGENT, namespace, installation.cluster_domain, export_to=".", policy=policy)


def _network_policy(installation: Installation, namespace: str, name: str, selector: JsonObject) -> JsonObject:
    """In: what is steered, from the namespace; laptops, where an address is published (a port-forward is within the pod).

    Out: everywhere but to link-local addresses, where clouds keep their metadata; DNS may be there too.
    """
    steers = name == AGENT
    laptops = [TUNNEL_PORT, EGRESS_PORT] if steers else [EGRESS_PORT]
    ingress: list[JsonObject] = [{"ports": _tcp(*_SIDECAR_PORTS, READY_PORT)}]
    if steers:
        ingress.insert(0, {"from": [{"podSelector": {}}], "ports": _tcp(STEER_PORT)})
    if installation.published is not None:
        ingress.append({"ports": _tcp(*laptops)})
    anywhere = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
        {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10"]}},
    ]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name, namespace),
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [{"ports": dns}, {"to": anywhere}],
        },
    }


def _tcp(*ports: int) -> list[JsonObject]:
    return [{"protocol": "TCP", "port": port} for port in ports]
