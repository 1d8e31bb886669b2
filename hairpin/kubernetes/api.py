"""The API server as hairpin's programs call it: a few verbs on JSON objects, over aiohttp.

Where it is and who we are comes from a kubeconfig with its contexts and exec plugins, or from the pod's service account, both
read by the kubernetes package. Credentials are renewed when they end, and once when the API server calls them invalid.

    async with connect(context="staging") as api:
        session = await api.create(SESSIONS, document, namespace="shop")
        async for event in api.watch(SESSIONS, namespace="shop", version=session["metadata"]["resourceVersion"]):
            …
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hairpin.kubernetes.errors import ApiNotFoundError, api_error
from hairpin.kubernetes.kinds import Kind
from hairpin.kubernetes.requests import Requests
from hairpin.model.version import user_agent
from hairpin.sockets import watched_socket

if TYPE_CHECKING:
    import aiohttp

    from hairpin.kubernetes.credentials import Credentials

JsonObject = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

_SILENCE_SECONDS = 150.0
"""A watch says something once a minute (a bookmark); silent for longer, its connection is dead."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a watch says: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: JsonObject


@contextlib.asynccontextmanager
async def connect(
    *, kubeconfig: str | None = None, context: str | None = None, in_cluster: bool = False
) -> AsyncIterator[Api]:
    """A client until the context ends.

    Args:
        kubeconfig: its path; by default as kubectl has it: $KUBECONFIG, else ~/.kube/config.
        context: of the kubeconfig; its current one by default.
        in_cluster: use the pod's service account where there is one and no kubeconfig is named.

    Raises:
        NotFoundError: there is no kubeconfig, or no such context in it.
        HairpinError: the kubeconfig can't be used, or its exec plugin failed.
    """
    import aiohttp  # noqa: PLC0415 # not for --version

    from hairpin.kubernetes.credentials import load_credentials  # noqa: PLC0415

    credentials = await load_credentials(kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    connector = aiohttp.TCPConnector(limit=0, socket_factory=watched_socket)
    async with aiohttp.ClientSession(
        connector=connector, headers={"User-Agent": user_agent()}, trust_env=True
    ) as session:
        yield Api(session, credentials)


class Api(Requests):
    """Verbs on objects; `connect` gives one. Every method raises `ApiError` for what the API server refuses."""

    def __init__(self, session: aiohttp.ClientSession, credentials: Credentials) -> None:
        super().__init__(session, credentials)
        self._kinds: dict[str, dict[str, Kind]] = {}

    async def get(self, kind: Kind, name: str, *, namespace: str = "") -> JsonObject:
        """One object."""
        return await self.call("GET", kind.path(namespace, name))

    async def find(self, kind: Kind, name: str, *, namespace: str = "") -> JsonObject | None:
        """One object, None where there is none, or no such kind."""
        try:
            return await self.get(kind, name, namespace=namespace)
        except ApiNotFoundError:
            return None

    async def list(
        self, kind: Kind, *, namespace: str = "", labels: str = "", fields: str = "", version: str = ""
    ) -> JsonObject:
        """The list object: `items`, and `metadata.resourceVersion` to watch from. No namespace: all of them.

        Args:
            kind: of which kind.
            namespace: whose.
            labels: a label selector.
            fields: a field selector.
            version: `0` if the API server's cache is new enough.
        """
        query = {"labelSelector": labels, "fieldSelector": fields, "resourceVersion": version}
        return await self.call("GET", kind.path(namespace), query=query)

    async def watch(
        self, kind: Kind, *, namespace: str = "", version: str, labels: str = "", fields: str = "", seconds: int = 300
    ) -> AsyncGenerator[Event, None]:
        """What happens after a resource version, bookmarks included, until the API server ends the watch.

        Raises:
            ApiGoneError: the version is too old: list again.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": str(seconds),
        }
        async with self.stream("GET", kind.path(namespace), query=query, silence=_SILENCE_SECONDS) as response:
            async for line in _lines(response):
                document = json.loads(line)
                if document["type"] == "ERROR":
                    raise api_error(document["object"].get("code", 500), document["object"], "GET", kind.plural)
                yield Event(document["type"], document["object"])

    async def create(self, kind: Kind, document: JsonObject, *, namespace: str = "") -> JsonObject:
        """A new object; with `metadata.generateName` the API server names it."""
        return await self.call("POST", kind.path(namespace), body=document)

    async def replace(self, kind: Kind, document: JsonObject, *, subresource: str = "") -> JsonObject:
        """The object as given; with `metadata.resourceVersion` only if it is still that version."""
        metadata = document["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"], subresource)
        return await self.call("PUT", path, body=document)

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: JsonObject | Sequence[JsonObject],
        *,
        namespace: str = "",
        subresource: str = "",
        content_type: str = MERGE_PATCH,
    ) -> JsonObject:
        """A merge patch, or another by its content type."""
        path = kind.path(namespace, name, subresource)
        return await self.call("PATCH", path, body=patch, content_type=content_type)

    async def apply(
        self,
        kind: Kind,
        document: JsonObject,
        *,
        manager: str,
        force: bool = True,
        dry_run: bool = False,
        subresource: str = "",
    ) -> JsonObject:
        """Server-side apply: the object is made, or our fields of it are set to what is given.

        Args:
            kind: of the document; `kind_of` finds it.
            document: whole, with name and namespace.
            manager: whose fields they are.
            force: take fields that another manager has set.
            dry_run: have it checked alone.
            subresource: such as `status`.
        """
        metadata = document["metadata"]
        query = {"fieldManager": manager, "force": str(force).lower(), "dryRun": "All" if dry_run else ""}
        path = kind.path(metadata.get("namespace", ""), metadata["name"], subresource)
        return await self.call("PATCH", path, query=query, body=document, content_type=APPLY)

    async def delete(
        self, kind: Kind, name: str, *, namespace: str = "", uid: str = "", propagation: str = ""
    ) -> JsonObject | None:
        """Delete an object; None where it is gone already. With a uid, only the one of that uid."""
        options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if propagation:
            options["propagationPolicy"] = propagation
        try:
            return await self.call("DELETE", kind.path(namespace, name), body=options)
        except ApiNotFoundError:
            return None

    async def served(self, kind: Kind) -> bool:
        """Whether the API server has this kind now; nothing is remembered."""
        try:
            found = await self.call("GET", kind.root)
        except ApiNotFoundError:
            return False
        return any(resource["name"] == kind.plural for resource in found["resources"])

    async def kind_of(self, document: Mapping[str, Any]) -> Kind:
        """The kind of an object, by discovery.

        Raises:
            ApiNotFoundError: the API server has none such.
        """
        version, name = document["apiVersion"], document["kind"]
        if name not in self._kinds.get(version, {}):
            group, _, number = version.rpartition("/")
            root = Kind(group, number, "", name).root
            found = await self.call("GET", root)
            self._kinds[version] = {
                resource["kind"]: Kind(group, number, resource["name"], resource["kind"], resource["namespaced"])
                for resource in found["resources"]
                if "/" not in resource["name"]
            }
        try:
            return self._kinds[version][name]
        except KeyError:
            raise ApiNotFoundError(404, "NotFound", f"the API server has no kind {name} in {version}") from None


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length: aiohttp's own reader refuses long ones."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
