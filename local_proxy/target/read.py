"""What the API server tells of a target: its pod, and by exec or by its spec the container's environment and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError
from hairpin.kubernetes.api import Api, JsonObject
from hairpin.kubernetes.errors import ApiError, ApiForbiddenError, ApiNotFoundError
from hairpin.kubernetes.exec import NotStartedError, not_found, run_in_container
from hairpin.kubernetes.kinds import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    PODS,
    ROLLOUTS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
)
from hairpin.model.target import Target
from local_proxy.target import script, spec, volumes
from local_proxy.target.links import API_SERVER, link_variables
from local_proxy.target.spec import Left, Objects, Reference
from local_proxy.target.volumes import COPIED, File, Mount, Token

_WORKLOADS = {
    "deployment": DEPLOYMENTS,
    "statefulset": STATEFUL_SETS,
    "daemonset": DAEMON_SETS,
    "rollout": ROLLOUTS,
}
_KINDS = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}
_PROXY = "istio-proxy"
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_LEAST_TOKEN_SECONDS = 600
"""The API server takes no less."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was read."""

    pod: str
    container: str
    how: str
    """`exec`, or `its spec`."""
    variables: Mapping[str, str]
    files: Mapping[str, File]
    mounts: tuple[Mount, ...]
    left: tuple[Left, ...] = ()
    uncopied: tuple[str, ...] = ()
    """Mounted volumes of which no copy is made."""
    tokens: tuple[str, ...] = ()
    """Paths of the files that hold tokens, which end."""


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


class Reader:
    """Reads a target, again where its tokens end.

    Args:
        api: the API server.
        namespace: the target's.
        target: which.
        container: the container's name; None: the application's.
        files: whether files are wanted.
    """

    def __init__(self, api: Api, namespace: str, target: Target, *, container: str | None, files: bool) -> None:
        self._api = api
        self._namespace = namespace
        self._target = target
        self._container = container
        self._files = files

    async def read(self) -> Found:
        """By exec where that may be, else by the spec.

        Raises:
            HairpinError: not even its pod may be read.
        """
        pod, port = await find_pod(self._api, self._namespace, self._target)
        container = choose_container(pod, self._container, port)
        try:
            return await self._by_exec(pod, container)
        except ApiForbiddenError:
            return await self._by_spec(pod, container, "no right to exec")
        except NotStartedError:
            return await self._by_spec(pod, container, "its image has no sh and cat")

    async def _by_exec(self, pod: JsonObject, container: JsonObject) -> Found:
        mounted = volumes.mounts(pod, container, {})
        if any("subPathExpr" in mount for mount in container.get("volumeMounts") or []):
            own, _ = spec.environment(pod, container, Objects(), {})
            mounted = volumes.mounts(pod, container, own)
        copied = [mount for mount in mounted if mount.kind in COPIED]
        folders = [mount.path for mount in copied] if self._files else []
        name, mark = pod["metadata"]["name"], script.new_mark()
        ran = await run_in_container(
            self._api,
            self._namespace,
            name,
            container["name"],
            script.command(mark, folders),
            most=script.MOST_BYTES,
        )
        if script.lacks_cat(ran.code) or not_found(ran):
            raise NotStartedError("the image has no sh, or no cat")
        expected = [one["name"] for one in container.get("env") or [] if "valueFrom" not in one]
        told = script.parse(ran.output, mark, folders, expected)
        # What a file is like, but not what is in it, the spec tells, too.
        known = volumes.files(pod, container, copied, Objects())
        modes = {token.path: token.mode for token in known.tokens} | _modes(copied)
        files = {path: File(data, _mode(path, modes)) for path, data in told.files.items()}
        tokens = tuple(token.path for token in known.tokens if token.path in files)
        return Found(
            name, container["name"], "exec", told.variables, files, tuple(copied), (), _uncopied(mounted), tokens
        )

    async def _by_spec(self, pod: JsonObject, container: JsonObject, why: str) -> Found:
        mounted = volumes.mounts(pod, container, {})
        copied = [mount for mount in mounted if mount.kind in COPIED] if self._files else []
        objects = await self._objects(spec.references(container) | volumes.references(copied))
        variables, left = spec.environment(pod, container, objects, await self._links(pod))
        if copied:
            mounted = volumes.mounts(pod, container, variables)  # subPathExpr
            copied = [mount for mount in mounted if mount.kind in COPIED]
        found = volumes.files(pod, container, copied, objects)
        files, left = dict(found.files), [*left, *found.left]
        tokens = []
        for token in found.tokens:
            try:
                files[token.path] = File(await self._token(pod, token), token.mode)
                tokens.append(token.path)
            except ApiError as error:
                left.append(Left(f"token {token.path}", _why(error)))
        return Found(
            pod["metadata"]["name"],
            container["name"],
            f"its spec: {why}",
            variables,
            files,
            tuple(copied),
            tuple(left),
            _uncopied(mounted),
            tuple(tokens),
        )

    async def _objects(self, wanted: Iterable[Reference]) -> Objects:
        data, missing, absent = {}, {}, set()
        for reference in sorted(wanted, key=str):
            try:
                found = await self._api.get(_KINDS[reference.kind], reference.name, namespace=self._namespace)
                data[reference] = spec.object_data({**found, "kind": reference.kind})
            except ApiError as error:
                missing[reference] = _why(error)
                if isinstance(error, ApiNotFoundError):
                    absent.add(reference)
        return Objects(data, missing, frozenset(absent))

    async def _links(self, pod: JsonObject) -> dict[str, str]:
        services: list[JsonObject] = []
        if pod["spec"].get("enableServiceLinks", True):
            try:
                services = (await self._api.list(SERVICES, namespace=self._namespace))["items"]
            except ApiForbiddenError:
                services = []  # names do as well, and few still use these variables
        own = link_variables(one for one in services if one["metadata"]["name"] != "kubernetes")
        try:
            return own | link_variables([await self._api.get(SERVICES, "kubernetes", namespace="default")])
        except ApiError:
            return own | API_SERVER

    async def _token(self, pod: JsonObject, token: Token) -> bytes:
        metadata = pod["metadata"]
        request: JsonObject = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": max(token.seconds, _LEAST_TOKEN_SECONDS),
                "boundObjectRef": {
                    "apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"],
                },
                **({"audiences": [token.audience]} if token.audience else {}),
            },
        }  # fmt: skip
        account = pod["spec"].get("serviceAccountName") or "default"
        answer = await self._api.call("POST", SERVICE_ACCOUNTS.path(self._namespace, account, "token"), body=request)
        return str(answer["status"]["token"]).encode()


def required(found: Found) -> None:
    """Hold that nothing is missing.

    Raises:
        InvalidFieldError: something is.
    """
    if found.left:
        told = "; ".join(map(str, found.left))
        remedy = "ask an operator for the ClusterRole hairpin-target-exec or hairpin-target-config, or write auto"
        raise InvalidFieldError("--env-from", "target", f"can't be had whole: {told}", remedy)


def _why(error: HairpinError) -> str:
    if isinstance(error, ApiForbiddenError):
        return "you may not read it"
    return "there is none" if isinstance(error, ApiNotFoundError) else str(error)


def _modes(mounted: Iterable[Mount]) -> dict[str, int]:
    modes = {}
    for mount in mounted:
        source = mount.volume[mount.kind]
        modes[mount.path] = int(source.get("defaultMode") or 0o644)
        for item in source.get("items") or []:
            inside = item["path"] if not mount.below else ""
            if item.get("mode") is not None and inside:
                modes[f"{mount.path}/{inside}"] = int(item["mode"])
    return modes


def _mode(path: str, modes: Mapping[str, int]) -> int:
    best = max((known for known in modes if volumes.within(path, known)), key=len, default="")
    return modes.get(best, 0o644)


def _uncopied(mounted: Iterable[Mount]) -> tuple[str, ...]:
    return tuple(f"{mount.path} ({mount.kind})" for mount in mounted if mount.kind not in COPIED)
