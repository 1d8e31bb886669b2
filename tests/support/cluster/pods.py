"""A pod as tests see it: what it is, requests from inside it, its sidecar's admin interface."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from tests.support.cluster.client import Object
from tests.support.cluster.host import DNS
from tests.support.cluster.names import Resolver
from tests.support.netns import socket_in

_ADMIN = "http://127.0.0.1:15000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a request was answered."""

    status: int
    headers: CIMultiDictProxy[str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def who(self) -> str:
        """Which application answered."""
        return str(self.json["who"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A network namespace from which requests are made: a pod's, or the laptop's. They are root's, not the sidecar's."""

    name: str
    namespace: str
    network: Path

    @contextlib.asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
        """An HTTP client whose connections are made in there, and whose names are asked of the cluster's DNS."""
        connector = aiohttp.TCPConnector(
            resolver=Resolver(self.network, DNS, self.namespace),
            socket_factory=lambda _address: socket_in(self.network),
            limit=0,
        )
        async with aiohttp.ClientSession(connector=connector, **options) as session:
            yield session

    async def request(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        seconds: float = 30,
    ) -> Response:
        """One request on a connection of its own.

        Raises:
            aiohttp.ClientError: no answer.
        """
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with (
            self.session(timeout=timeout) as session,
            session.request(method, url, headers=headers, data=body) as response,
        ):
            return Response(status=response.status, headers=response.headers, text=await response.text())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod(Place):
    """A pod that runs."""

    ip: str
    object: Object

    @property
    def containers(self) -> list[str]:
        spec = self.object["spec"]
        return [container["name"] for container in [*spec.get("initContainers", []), *spec["containers"]]]

    async def envoy(self, path: str, *, method: str = "GET") -> str:
        """The answer of its sidecar's admin interface, such as `/config_dump` or `/stats?filter=listener_modified`."""
        response = await self.request(_ADMIN + path, method=method)
        if response.status != 200:
            raise AssertionError(f"{self.name}: {path} answered {response.status}: {response.text}")
        return response.text

    async def config_dump(self) -> Any:
        return json.loads(await self.envoy("/config_dump?include_eds"))

    async def stat(self, name: str) -> int:
        """One of its sidecar's counters or gauges; 0 where it has none of this name."""
        for line in (await self.envoy(f"/stats?filter=^{name.replace('.', '[.]')}$")).splitlines():
            found, _, value = line.partition(": ")
            if found == name:
                return int(value)
        return 0
