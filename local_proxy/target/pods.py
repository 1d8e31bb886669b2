"""Which pod of a target is read, and which of its containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hairpin.errors import NotFoundError
from hairpin.kubernetes.api import Api, JsonObject
from hairpin.kubernetes.kinds import DAEMON_SETS, DEPLOYMENTS, PODS, ROLLOUTS, SERVICES, STATEFUL_SETS
from hairpin.model.target import Target

_WORKLOADS = {
    "deployment": DEPLOYMENTS,
    "statefulset": STATEFUL_SETS,
    "daemonset": DAEMON_SETS,
    "rollout": ROLLOUTS,
}
_PROXY = "istio-proxy"
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def selector_text(selector: Mapping[str, Any]) -> str:
    """A workload's selector as a query has it."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or []:
        key, values = one["key"], ",".join(one.get("values") or [])
        match one["operator"]:
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
    return ",".join(terms)


def choose_pod(pods: Iterable[JsonObject]) -> JsonObject | None:
    """One that runs and is ready if there is one; of several the youngest, which has the newest revision."""

    def rank(pod: JsonObject) -> tuple[bool, str, str]:
        conditions = (pod.get("status") or {}).get("conditions") or []
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return ready, str(pod["metadata"].get("creationTimestamp", "")), pod["metadata"]["name"]

    running = [
        pod
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
    ]
    return max(running, key=rank, default=None)


def choose_container(pod: JsonObject, named: str | None, port: int | str | None) -> JsonObject:
    """The named one; else the one that has the port, the one that kubectl would take, the first that is not Istio's.

    Raises:
        NotFoundError: there is none of that name.
    """
    every: list[JsonObject] = pod["spec"]["containers"]
    by_name = {container["name"]: container for container in every}
    if named is not None:
        if named not in by_name:
            raise NotFoundError(
                f"--container: pod {pod['metadata']['name']} has no container {named!r}; it has {', '.join(by_name)}"
            )
        return by_name[named]
    own = [container for container in every if container["name"] != _PROXY] or every
    for container in own:
        ports = container.get("ports") or []
        if port is not None and any(port in (one.get("containerPort"), one.get("name")) for one in ports):
            return container
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER, "")
    return by_name[default] if default in by_name and default != _PROXY else own[0]


async def find_pod(api: Api, namespace: str, target: Target) -> tuple[JsonObject, int | str | None]:
    """A running pod of a target, and the target's port as its containers know it.

    Raises:
        NotFoundError: there is no such target, or no pod of it runs.
        ApiError: it may not be read.
    """
    port = target.port
    if target.kind == "pod":
        return await api.get(PODS, target.name, namespace=namespace), port
    if target.kind == "service":
        service = await api.get(SERVICES, target.name, namespace=namespace)
        labels = selector_text({"matchLabels": service["spec"].get("selector") or {}})
        ports = service["spec"].get("ports") or []
        chosen = [one for one in ports if port is None or port in (one.get("name"), one["port"])]
        port = (chosen[0].get("targetPort") or chosen[0]["port"]) if chosen else port
    else:
        workload = await api.get(_WORKLOADS[target.kind], target.name, namespace=namespace)
        labels = selector_text(workload["spec"].get("selector") or {})
    pod = choose_pod((await api.list(PODS, namespace=namespace, labels=labels))["items"]) if labels else None
    if pod is None:
        raise NotFoundError(f"no pod of {target} runs in namespace {namespace}")
    return pod, port
