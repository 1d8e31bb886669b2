"""A small client of the API server, independent of the one under test: apply, get, list, delete, wait."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

Object = dict[str, Any]

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_POLL_SECONDS = 0.1


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, body: Object) -> None:
        super().__init__(f"{status} {body.get('reason', '')}: {body.get('message', body)}")
        self.status = status
        self.reason = str(body.get("reason", ""))
        self.message = str(body.get("message", ""))


@dataclass(frozen=True, slots=True)
class _Resource:
    base: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        parts = [self.base, *(["namespaces", namespace] if self.namespaced and namespace else []), self.plural]
        return "/".join([*parts, *filter(None, (name, subresource))])


class Client:
    """One user's way to the API server. A kind is `Deployment` or, where several groups have it, `apps/v1/Deployment`.

    Use it as an async context manager, or `close` it.
    """

    def __init__(self, server: str, ca: Path, token: str) -> None:
        self._server = server
        self._ca = ca
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None
        self._resources: dict[str, _Resource] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def request(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None, **headers: str
    ) -> Object:
        """One request: the answer's JSON.

        Raises:
            ApiError: any status from 400 on.
        """
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(self._ca)), limit=0)
            self._session = aiohttp.ClientSession(self._server, connector=connector, headers=self._headers)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(method, path, json=body, params=query, headers=sent) as response:
            text = await response.text()
            answer: Object = {"message": text}
            if response.content_type == "application/json" or "json" in response.content_type:
                answer = await response.json(content_type=None)
            if response.status >= 400:
                raise ApiError(response.status, answer)
            return answer

    async def apply(
        self, *objects: Object | str | Path, namespace: str | None = None, manager: str = "test", dry_run: bool = False
    ) -> list[Object]:
        """Server-side apply of objects, of YAML text, or of YAML files.

        Args:
            objects: what to apply, in order; text and files may hold several.
            namespace: for objects that name none.
            manager: the field manager.
            dry_run: let the API server judge, and keep nothing.
        """
        query = {"fieldManager": manager, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        results = []
        for obj in (found for item in objects for found in documents(item)):
            resource = await self._resource(f"{obj['apiVersion']}/{obj['kind']}")
            where = obj["metadata"].get("namespace", namespace)
            path = resource.path(where, obj["metadata"]["name"])
            results.append(
                await self.request("PATCH", path, obj, query=query, Content_Type="application/apply-patch+yaml")
            )
        return results

    async def create(self, obj: Object, *, namespace: str | None = None, dry_run: bool = False) -> Object:
        resource = await self._resource(f"{obj['apiVersion']}/{obj['kind']}")
        query = {"dryRun": "All"} if dry_run else None
        return await self.request("POST", resource.path(obj["metadata"].get("namespace", namespace)), obj, query=query)

    async def patch(
        self, kind: str, name: str, change: Object, *, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """A JSON merge patch."""
        path = (await self._resource(kind)).path(namespace, name, subresource)
        return await self.request("PATCH", path, change, Content_Type="application/merge-patch+json")

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """The object, None where there is none."""
        path = (await self._resource(kind)).path(namespace, name)
        try:
            return await self.request("GET", path)
        except ApiError as e:
            if e.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str | None = None, labels: str = "") -> list[Object]:
        """Objects, of one namespace or all, narrowed by a label selector."""
        path = (await self._resource(kind)).path(namespace)
        query = {"labelSelector": labels} if labels else None
        return list((await self.request("GET", path, query=query))["items"])

    async def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Deletes it if it is there."""
        path = (await self._resource(kind)).path(namespace, name)
        try:
            await self.request("DELETE", path, {"propagationPolicy": "Background"})
        except ApiError as e:
            if e.status != 404:
                raise

    async def delete_all(self, kind: str, namespace: str | None = None, labels: str = "") -> None:
        path = (await self._resource(kind)).path(namespace)
        await self.request("DELETE", path, query={"labelSelector": labels} if labels else None)

    async def wait_for(
        self,
        kind: str,
        name: str,
        condition: Callable[[Object], Any],
        *,
        namespace: str | None = None,
        seconds: float = 30,
    ) -> Object:
        """The object once it is there and the condition holds.

        Raises:
            TimeoutError: with the object as it was last seen.
        """
        last: Object | None = None
        try:
            async with asyncio.timeout(seconds):
                while not ((last := await self.get(kind, name, namespace)) and condition(last)):
                    await asyncio.sleep(_POLL_SECONDS)
                return last
        except TimeoutError as e:
            raise TimeoutError(f"{kind} {name} in {namespace} after {seconds} s: {yaml.safe_dump(last)}") from e

    async def wait_gone(self, kind: str, name: str, *, namespace: str | None = None, seconds: float = 30) -> None:
        """Until there is no such object."""
        last: Object | None = None
        try:
            async with asyncio.timeout(seconds):
                while last := await self.get(kind, name, namespace):
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as e:
            raise TimeoutError(f"{kind} {name} in {namespace} after {seconds} s: {yaml.safe_dump(last)}") from e

    async def everything(self, namespace: str | None = None) -> Sequence[Object]:
        """Every object of every kind that can be listed, of one namespace or of the whole cluster."""
        await self._discover()
        found: list[Object] = []
        for kind, resource in sorted(self._resources.items()):
            if kind.count("/") == 0 or (namespace and not resource.namespaced):
                continue
            try:
                answer = await self.request("GET", resource.path(namespace))
            except ApiError as e:
                if e.status not in (403, 404, 405):
                    raise
                continue
            api_version, _, name = kind.rpartition("/")
            found += [{"apiVersion": api_version, "kind": name, **item} for item in answer.get("items", [])]
        return found

    async def _resource(self, kind: str) -> _Resource:
        if kind not in self._resources:
            await self._discover()
        if kind not in self._resources:
            raise ValueError(f"the API server knows no {kind}")
        return self._resources[kind]

    async def _discover(self) -> None:
        resources: dict[str, _Resource] = {}
        for root in ("/api", "/apis"):
            groups = (await self.request("GET", root, Accept=_DISCOVERY))["items"]
            for group in groups:
                name = group["metadata"].get("name", "")
                for version in group["versions"]:
                    _add(resources, root, name, version)
        self._resources = resources


def _add(resources: dict[str, _Resource], root: str, group: str, version: Mapping[str, Any]) -> None:
    api_version = f"{group}/{version['version']}" if group else version["version"]
    for found in version["resources"]:
        kind = found.get("responseKind", {}).get("kind")
        if not kind or ("list" not in found.get("verbs", []) and "create" not in found.get("verbs", [])):
            continue
        resource = _Resource(f"{root}/{api_version}", found["resource"], found["scope"] == "Namespaced")
        resources[f"{api_version}/{kind}"] = resource
        resources.setdefault(kind, resource)  # the API server lists groups and versions by preference


def documents(item: Object | str | Path) -> Sequence[Object]:
    """The objects that an object, a YAML text or a YAML file holds."""
    if isinstance(item, dict):
        return [item]
    text = item.read_text() if isinstance(item, Path) else item
    return [found for found in yaml.load_all(text, Loader=_LOADER) if found]


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
