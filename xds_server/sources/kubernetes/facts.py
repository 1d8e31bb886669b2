"""From the API server's JSON to facts. Pure.

Istio's and hairpin's own objects may have been written under another version of their CRD, or none: whatever is in them is
read with care, and what can't be read is said in the facts. Core objects have the shape that the API server gave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from hairpin.certificate_reading import certificate_key, request_key
from hairpin.errors import InvalidFieldError
from hairpin.model.names import check_label
from hairpin.model.routing_key_json import routing_key_from_json
from hairpin.model.session import SessionSpec, SessionStatus
from hairpin.model.session_json import spec_from_json, status_from_json
from hairpin.model.session_shapes import NEVER
from hairpin.model.shape import Moment
from xds_server.model.cluster import (
    ContainerPort,
    EgressHosts,
    EnvironmentFacts,
    EnvoyFilterFacts,
    IstiodFacts,
    Key,
    PodFacts,
    ServiceFacts,
    ServicePortFacts,
    SessionFacts,
    SidecarFacts,
    WorkloadFacts,
)

JsonObject = dict[str, Any]

PROXY = "istio-proxy"
"""The name of the sidecar's container, injected as a container or as an init container that stays."""
INJECTED = "sidecar.istio.io/status"
"""The annotation that the injector leaves."""

_LISTENING = {"LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER"}
_ROUTING = {"ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"}


def key_of(document: JsonObject) -> Key:
    """An object's namespace and name."""
    metadata = document["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


# Kubernetes' own


def workload_facts(kind: str, document: JsonObject) -> WorkloadFacts:
    """A Deployment, StatefulSet, DaemonSet or Rollout; `kind` in lower case."""
    spec = document.get("spec") or {}
    selector = spec.get("selector") or {}
    labels = dict(selector.get("matchLabels") or {})
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    return WorkloadFacts(
        kind=kind,
        key=key_of(document),
        selector=None if selector.get("matchExpressions") else labels,
        labels=dict((template.get("metadata") or {}).get("labels") or labels),
        service_account=pod.get("serviceAccountName") or "default",
        ports=tuple(_container_ports(pod)),
    )


def service_facts(document: JsonObject) -> ServiceFacts:
    """A Service; its ports of UDP and SCTP are left out."""
    spec = document.get("spec") or {}
    return ServiceFacts(
        key=key_of(document),
        selector=dict(spec.get("selector") or {}),
        ports=tuple(
            ServicePortFacts(
                number=port["port"],
                name=port.get("name", ""),
                target=port.get("targetPort") or port["port"],
                app_protocol=port.get("appProtocol") or "",
            )
            for port in spec.get("ports") or ()
            if port.get("protocol", "TCP") == "TCP"
        ),
    )


def pod_facts(document: JsonObject) -> PodFacts:
    """A pod."""
    metadata, spec, status = document["metadata"], document.get("spec") or {}, document.get("status") or {}
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    ready: JsonObject = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
    done = status.get("phase") in ("Succeeded", "Failed")
    return PodFacts(
        key=key_of(document),
        labels=dict(metadata.get("labels") or {}),
        service_account=spec.get("serviceAccountName") or "default",
        owner=f"{owner['kind'].lower()}/{owner['name']}" if owner else "",
        ready=ready.get("status") == "True",
        ready_since=_moment(ready.get("lastTransitionTime")),
        ip=status.get("podIP") or "",
        sidecar=INJECTED in (metadata.get("annotations") or {}) or any(c["name"] == PROXY for c in _containers(spec)),
        terminating="deletionTimestamp" in metadata or done,
        ports=tuple(_container_ports(spec)),
    )


def _containers(pod: JsonObject) -> Iterator[JsonObject]:
    yield from pod.get("containers") or ()
    yield from pod.get("initContainers") or ()


def _container_ports(pod: JsonObject) -> Iterator[ContainerPort]:
    for container in _containers(pod):
        if container["name"] != PROXY:
            for port in container.get("ports") or ():
                if port.get("protocol", "TCP") == "TCP":
                    yield ContainerPort(number=port["containerPort"], name=port.get("name", ""))


# Istio's


def envoy_filter_facts(document: JsonObject) -> EnvoyFilterFacts:
    """Somebody else's EnvoyFilter."""
    spec = _mapping(document.get("spec"))
    patches = spec.get("configPatches")
    sidecars = not spec.get("targetRefs")
    return EnvoyFilterFacts(
        key=key_of(document),
        selector={str(k): str(v) for k, v in _mapping(_mapping(spec.get("workloadSelector")).get("labels")).items()},
        inbound=sidecars and isinstance(patches, list) and any(_is_inbound(_mapping(patch)) for patch in patches),
    )


def sidecar_facts(document: JsonObject) -> SidecarFacts:
    """A Sidecar of somebody's."""
    spec = _mapping(document.get("spec"))
    selector = spec.get("workloadSelector")
    labels = _mapping(_mapping(selector).get("labels"))
    egress = spec.get("egress")
    return SidecarFacts(
        key=key_of(document),
        created=_moment(document["metadata"].get("creationTimestamp")) or NEVER,
        selector=None if selector is None else {str(name): str(value) for name, value in labels.items()},
        egress=tuple(_egress_hosts(_mapping(part)) for part in egress) if isinstance(egress, list) and egress else None,
    )


def _egress_hosts(listener: JsonObject) -> EgressHosts:
    port, hosts = _mapping(listener.get("port")), listener.get("hosts")
    # A listener that is an HTTP proxy is for ports of any number.
    number = None if port.get("protocol") == "HTTP_PROXY" else port.get("number") or None
    return EgressHosts(
        port=number if isinstance(number, int) else None,
        hosts=tuple(str(host) for host in hosts) if isinstance(hosts, list) else (),
    )


def istiod_facts(document: JsonObject) -> IstiodFacts:
    """A Deployment of istiod's."""
    pod = ((document.get("spec") or {}).get("template") or {}).get("spec") or {}
    variables = {
        variable["name"]: variable.get("value") or ""
        for container in pod.get("containers") or ()
        for variable in container.get("env") or ()
    }
    return IstiodFacts(
        key=key_of(document),
        ignored=variables.get("PILOT_IGNORE_RESOURCES", ""),
        included=variables.get("PILOT_INCLUDE_RESOURCES", ""),
    )


def _is_inbound(patch: JsonObject) -> bool:
    context = _mapping(patch.get("match")).get("context", "ANY")
    return context in ("SIDECAR_INBOUND", "ANY") and patch.get("applyTo") in _LISTENING | _ROUTING


# hairpin's


def session_facts(document: JsonObject) -> SessionFacts:
    """A Session, with how its certificate stands."""
    metadata = document["metadata"]
    spec, problem = _spec(document)
    status = _status(document)
    requested, request_problem = _request(spec)
    certified, end = _certificate(status)
    return SessionFacts(
        key=key_of(document),
        created=_moment(metadata.get("creationTimestamp")) or NEVER,
        spec=spec,
        problem=problem,
        status=status,
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        deleting="deletionTimestamp" in metadata,
        request_key=requested,
        request_problem=request_problem,
        certificate_key=certified,
        certificate_end=end,
    )


def environment_facts(document: JsonObject) -> EnvironmentFacts:
    """An Environment object."""
    name, spec = document["metadata"]["name"], _mapping(document.get("spec"))
    try:
        key = routing_key_from_json(spec["routingKey"], "spec.routingKey") if spec.get("routingKey") else None
        members = spec.get("members") or []
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            raise InvalidFieldError("spec.members", None, "is not a list of names", "write users' names")  # noqa: TRY301
    except InvalidFieldError as error:
        return EnvironmentFacts(name=name, problem=str(error))
    return EnvironmentFacts(name=name, routing_key=key, members=frozenset(members))


def _spec(document: JsonObject) -> tuple[SessionSpec | None, str]:
    try:
        check_label("metadata.name", document["metadata"]["name"])
        return spec_from_json(document.get("spec")), ""
    except InvalidFieldError as error:
        return None, str(error)


def _status(document: JsonObject) -> SessionStatus:
    try:
        return status_from_json(document.get("status") or {})
    except InvalidFieldError:
        return SessionStatus()


def _request(spec: SessionSpec | None) -> tuple[str, str]:
    if spec is None or not spec.certificate_request:
        return "", ""
    try:
        return request_key(spec.certificate_request, "spec.certificateRequest"), ""
    except InvalidFieldError as error:
        return "", str(error)


def _certificate(status: SessionStatus) -> tuple[str, datetime | None]:
    if not status.certificate:
        return "", None
    try:
        return certificate_key(status.certificate)
    except InvalidFieldError:
        return "", None


def _mapping(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _moment(value: Any) -> datetime | None:
    return Moment().read(value, "") if value else None
