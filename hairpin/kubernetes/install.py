"""`hairpin install`: looks before it writes, applies every object, and waits until the programs run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError, UnavailableError
from hairpin.kubernetes.api import Api
from hairpin.kubernetes.errors import ApiForbiddenError, ApiNotFoundError
from hairpin.kubernetes.installation import SYSTEM, Installation
from hairpin.kubernetes.kinds import (
    ADMISSION_POLICIES,
    CUSTOM_RESOURCE_DEFINITIONS,
    DELIVERED,
    DEPLOYMENTS,
    ENVOY_FILTERS,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
)
from hairpin.kubernetes.objects import installation_objects
from hairpin.kubernetes.prune import prune, prune_deliveries

JsonObject = dict[str, Any]
Say = Callable[[str], None]

MANAGER = "hairpin-install"
"""The field manager."""
_POLL_SECONDS = 0.5
_WORKLOADS = {"Deployment": DEPLOYMENTS, "StatefulSet": STATEFUL_SETS}


async def install(api: Api, installation: Installation, *, say: Say, wait_seconds: float) -> None:
    """Install, or bring an installation up to date.

    Args:
        api: of the cluster.
        installation: what to install.
        say: takes lines of progress.
        wait_seconds: how long to wait for the pods; 0: not at all.

    Raises:
        NotFoundError: a namespace or Istio is missing; nothing was written.
        HairpinError: the API server refused an object, or pods don't get ready; what was applied stays.
    """
    await _look_before(api, installation)
    objects = installation_objects(installation)
    say(f"{len(objects)} objects go to {api.server}")
    for document in objects:
        await _apply(api, document)
        if document["kind"] == "CustomResourceDefinition":
            await _until_served(api, document)
    say(f"applied: hairpin in {SYSTEM}, agents in {', '.join(installation.namespaces)}")
    await prune(api, objects, manager=MANAGER, say=say)
    await prune_deliveries(api, installation.delivery, installation.namespaces, say=say)
    if wait_seconds:
        await _until_ready(api, [d for d in objects if d["kind"] in _WORKLOADS], say, wait_seconds)


async def _look_before(api: Api, installation: Installation) -> None:
    if not await api.served(ENVOY_FILTERS):
        raise NotFoundError("the cluster has no EnvoyFilter: hairpin steers by Istio; install Istio first")
    delivered = DELIVERED[installation.delivery]
    if not await api.served(delivered):
        problem = f"needs {delivered.name} of {delivered.api_version}, which the cluster does not have"
        remedy = "install its definitions first, or choose another"
        raise InvalidFieldError("--delivery", installation.delivery.value, problem, remedy)
    if not await api.served(ADMISSION_POLICIES):
        raise NotFoundError("the API server has no ValidatingAdmissionPolicy; hairpin needs Kubernetes 1.30 or newer")
    for namespace in installation.namespaces:
        await _namespace(api, "--namespace", namespace, "make it first, or name another")
    remedy = "name the namespace of istiod's configuration"
    await _namespace(api, "--root-namespace", installation.root_namespace, remedy)
    for account in installation.identities:
        for namespace in installation.namespaces:
            if await api.find(SERVICE_ACCOUNTS, account, namespace=namespace) is None:
                raise NotFoundError(
                    f"--identity: there is no service account {account!r} in namespace {namespace}; "
                    "name one that each served namespace has"
                )


async def _namespace(api: Api, flag: str, name: str, remedy: str) -> None:
    found = await api.find(NAMESPACES, name)
    if found is None:
        raise NotFoundError(f"{flag}: there is no namespace {name!r}; {remedy}")
    if found["metadata"].get("deletionTimestamp"):
        raise UnavailableError(f"{flag}: namespace {name!r} is being deleted; {remedy}")


async def _apply(api: Api, document: JsonObject) -> None:
    try:
        await api.apply(await api.kind_of(document), document, manager=MANAGER)
    except ApiForbiddenError as error:
        remedy = "install as one who may, or give them what `hairpin install --dry-run` prints"
        raise HairpinError(f"{_name(document)} is not yours to write: {error}; {remedy}") from error
    except ApiNotFoundError as error:
        raise HairpinError(f"{_name(document)}: {error}") from error


def _name(document: JsonObject) -> str:
    metadata = document["metadata"]
    return f"{document['kind']} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"


async def _until_served(api: Api, definition: JsonObject) -> None:
    """Until the API server has the kind: what comes next may need it."""
    name = definition["metadata"]["name"]
    async with asyncio.timeout(30):
        while True:
            found = await api.get(CUSTOM_RESOURCE_DEFINITIONS, name)
            conditions = {c["type"]: c for c in found.get("status", {}).get("conditions") or ()}
            refused = conditions.get("NonStructuralSchema")
            if refused:
                raise HairpinError(f"CustomResourceDefinition {name} is refused: {refused['message']}")
            if conditions.get("Established", {}).get("status") == "True":
                return
            await asyncio.sleep(_POLL_SECONDS)


async def _until_ready(api: Api, workloads: Sequence[JsonObject], say: Say, seconds: float) -> None:
    missing = {_name(workload): "not looked at yet" for workload in workloads}
    try:
        async with asyncio.timeout(seconds):
            while missing:
                found = {_name(workload): await _unready(api, workload) for workload in workloads}
                for name, state in found.items():
                    if state and missing.get(name) != state:
                        say(f"waiting for {name}: {state}")
                missing = {name: state for name, state in found.items() if state}
                await asyncio.sleep(_POLL_SECONDS if missing else 0)
            say("ready")
    except TimeoutError:
        name, state = next(iter(missing.items()))
        problem = f"{name} is not ready after {seconds:g} s: {state}"
        raise UnavailableError(f"{problem}; mend that and install again: what is in place stays") from None


async def _unready(api: Api, workload: JsonObject) -> str:
    """How a workload stands; empty if all of its pods are new and ready."""
    metadata = workload["metadata"]
    found = await api.get(_WORKLOADS[workload["kind"]], metadata["name"], namespace=metadata["namespace"])
    status, wanted = found.get("status", {}), found["spec"]["replicas"]
    new = min(status.get("updatedReplicas", 0), status.get("readyReplicas", 0))
    seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    if seen and new >= wanted and status.get("replicas", 0) == wanted:
        return ""
    reason = await _reason(api, found)
    return f"{new if seen else 0} of {wanted} ready" + (f" ({reason})" if reason else "")


async def _reason(api: Api, found: JsonObject) -> str:
    """What keeps a pod of a workload from running, as Kubernetes has it."""
    labels = ",".join(f"{name}={value}" for name, value in found["spec"]["selector"]["matchLabels"].items())
    pods = await api.list(PODS, namespace=found["metadata"]["namespace"], labels=labels)
    for pod in pods["items"]:
        status = pod.get("status", {})
        for state in (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())):
            waiting = state.get("state", {}).get("waiting", {})
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                return f"{pod['metadata']['name']}: {waiting['reason']} {waiting.get('message', '')}".strip()
        for condition in status.get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"{pod['metadata']['name']} has no node: {condition.get('message', '')}"
    return "" if pods["items"] else _refusal_of_pods(found)


def _refusal_of_pods(workload: JsonObject) -> str:
    """Why no pod is made: a quota, or an admission that refuses it."""
    for condition in workload.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", ""))
    return ""
