"""What tests with a real Envoy share: ports, small bootstraps, requests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil
from multidict import CIMultiDictProxy

from hairpin.envoy import config
from hairpin.envoy.preflight import validate

HOST = "127.0.0.1"


class Ports:
    """Free TCP ports on loopback that stay free for whoever was given one, until `close`.

    Each is kept bound by a socket that does not listen, so the system gives it to nobody else, while Envoy and Python's servers
    can still bind it: they set SO_REUSEADDR, as the holder does, and that suffices as long as the other one doesn't listen.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def __call__(self) -> int:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._held.append(holder)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HOST, 0))
        return int(holder.getsockname()[1])

    def close(self) -> None:
        for holder in self._held:
            holder.close()
        self._held.clear()


@contextlib.contextmanager
def listening(port: int = 0) -> Iterator[int]:
    """Someone else's server."""
    with socket.create_server((HOST, port)) as server:
        yield int(server.getsockname()[1])


@contextlib.contextmanager
def refusing(host: str = HOST) -> Iterator[int]:
    """A port that refuses connections, and that nobody else gets meanwhile: it is bound, and nobody listens."""
    with socket.socket() as held:
        held.bind((host, 0))
        yield int(held.getsockname()[1])


def http_listener(port: int, *routes: config.Config, name: str = "http", **manager: Any) -> config.Config:
    """A listener with one virtual host of these routes."""
    hosts = {"virtual_hosts": [config.virtual_host("all", *routes)]}
    filters = [config.http_manager(name, route_config=hosts, **manager)]
    return {"name": name, "address": config.tcp(HOST, port), "filter_chains": [{"filters": filters}]}


def answer(body: str, *, prefix: str = "/", status: int = 200) -> config.Config:
    """A route that Envoy itself answers."""
    return {"match": {"prefix": prefix}, "direct_response": {"status": status, "body": {"inline_string": body}}}


def static(*listeners: config.Config, clusters: tuple[config.Config, ...] = ()) -> config.Config:
    """A bootstrap of listeners and clusters."""
    return {"static_resources": {"listeners": list(listeners), "clusters": list(clusters)}}


async def validate_config(bootstrap: Mapping[str, Any]) -> None:
    """Fails the test with Envoy's reason if it would not take the bootstrap."""
    await validate(bootstrap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    headers: CIMultiDictProxy[str]
    text: str


class Http:
    """Simple requests with exactly the headers given, and those that HTTP/1.1 demands."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(
        self, url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", data: bytes | None = None
    ) -> Response:
        async with self._session.request(method, url, headers=headers, data=data, allow_redirects=False) as response:
            return Response(status=response.status, headers=response.headers, text=await response.text())


@contextlib.asynccontextmanager
async def http_client() -> AsyncIterator[Http]:
    skipped = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(skip_auto_headers=skipped, timeout=timeout) as session:
        session._retry_connection = False  # else a broken request is silently sent again, if its method is idempotent
        yield Http(session)


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for doesn't."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def eventually(probe: Callable[[], Any], *, what: str, seconds: float = 30.0) -> Any:
    """What the probe returns once that is true; a coroutine function's result is awaited. Fails with `what` never came."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                result = probe()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return result
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None
