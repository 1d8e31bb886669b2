"""What the API server tells of a target: its pod, and by exec or by its spec the container's environment and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hairpin.errors import HairpinError, InvalidFieldError
from hairpin.kubernetes.api import Api, JsonObject
from hairpin.kubernetes.errors import ApiError, ApiForbiddenError, ApiNotFoundError
from hairpin.kubernetes.exec import NotStartedError, not_found, run_in_container
from hairpin.kubernetes.kinds import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, SERVICES
from hairpin.model.target import Target
from local_proxy.target import script, spec, volumes
from local_proxy.target.links import API_SERVER, link_variables
from local_proxy.target.pods import choose_container, find_pod
from local_proxy.target.spec import Left, Objects, Reference
from local_proxy.target.volumes import COPIED, File, Mount, Token

_KINDS = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}
BY_EXEC = "exec"
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

    @property
    def by_exec(self) -> bool:
        """Whether the container itself told."""
        return self.how == BY_EXEC


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
        self._unreadable: set[Reference] = set()

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

    async def marks(self) -> dict[str, str]:
        """What is another after the pod or its mounted files are: versions of what may be read of it.

        Raises:
            HairpinError: not even its pod may be read.
        """
        pod, port = await find_pod(self._api, self._namespace, self._target)
        metadata = pod["metadata"]
        container = choose_container(pod, self._container, port)
        marks = {"pod": metadata["uid"]}
        for shown in ("labels", "annotations"):  # by a downwardAPI volume
            marks[shown] = repr(sorted((metadata.get(shown) or {}).items()))
        mounted = volumes.references(volumes.mounts(pod, container, {}))
        for reference in sorted(mounted - self._unreadable, key=str):
            try:
                found = await self._api.get(_KINDS[reference.kind], reference.name, namespace=self._namespace)
                marks[str(reference)] = found["metadata"]["resourceVersion"]
            except ApiForbiddenError:
                self._unreadable.add(reference)
            except ApiNotFoundError:
                marks[str(reference)] = ""
        return marks

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
            name, container["name"], BY_EXEC, told.variables, files, tuple(copied), (), _uncopied(mounted), tokens
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


def check_whole(found: Found, flag: str, value: str) -> None:
    """Hold that nothing is missing.

    Args:
        found: what was read.
        flag: which demands it.
        value: the flag's.

    Raises:
        InvalidFieldError: something is.
    """
    if found.left:
        told = "; ".join(map(str, found.left))
        remedy = "ask an operator for the ClusterRole hairpin-target-exec or hairpin-target-config, or write auto"
        raise InvalidFieldError(flag, value, f"can't be had whole: {told}", remedy)


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
