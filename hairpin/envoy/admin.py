"""Envoy's admin interface, over the unix socket that `ManagedEnvoy` gives it.

One request a connection, spoken in plain HTTP/1.1: an HTTP library costs more to import than Envoy takes to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.parse
from pathlib import Path
from typing import Any

from hairpin.errors import HairpinError, InvalidFieldError, UnavailableError
from hairpin.unix_sockets import MAX_SOCKET_PATH, fits, temporary_directory

_LARGEST_HEAD = 64 * 1024
_NAME = "admin.sock"
_PREFIX = "hairpin-admin-"


def admin_socket(directory: Path) -> Path:
    """Where an Envoy with its files in a directory shall have its admin socket: there, if the path is short enough."""
    path = directory.absolute() / _NAME
    if fits(path):
        return path
    return temporary_directory(_PREFIX, len(_NAME)) / _NAME


def remove_admin_socket(client: AdminClient | None) -> None:
    """Removes what `admin_socket` made and what Envoy made of it."""
    if client is None:
        return
    client.path.unlink(missing_ok=True)
    if client.path.parent.name.startswith(_PREFIX):
        with contextlib.suppress(OSError):
            client.path.parent.rmdir()


class AdminClient:
    """Asks one Envoy.

    Args:
        path: its admin socket.
        seconds: how long an answer may take.

    Every method raises UnavailableError when Envoy does not answer, and HairpinError when it answers with an error.
    """

    def __init__(self, path: Path, *, seconds: float = 5.0) -> None:
        if not fits(path):
            problem = f"is too long for a unix socket (at most {MAX_SOCKET_PATH} bytes)"
            raise InvalidFieldError("admin socket", str(path), problem, "use a shorter directory")
        self.path = path
        self._seconds = seconds

    async def get(self, path: str) -> str:
        """The body of a page, such as `/clusters?format=json`."""
        return await self._ask("GET", path)

    async def post(self, path: str) -> str:
        """Has Envoy do something, such as `/healthcheck/fail`."""
        return await self._ask("POST", path)

    async def ready(self) -> bool:
        """Whether Envoy is LIVE: it runs, has its configuration and accepts connections. Never raises for an Envoy that isn't."""
        try:
            status, _ = await self._exchange("GET", "/ready")
        except UnavailableError:
            return False
        return status == 200  # noqa: PLR2004

    async def state(self) -> str:
        """LIVE, DRAINING, PRE_INITIALIZING (waits for its first clusters) or INITIALIZING (for its listeners)."""
        _, body = await self._exchange("GET", "/ready")
        return body.strip()

    async def stats(self, regex: str) -> dict[str, int]:
        """Counters and gauges whose names match (RE2, anywhere in the name)."""
        text = await self.get("/stats?" + urllib.parse.urlencode({"filter": regex}))
        found = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(": ")
            if value.isdecimal():  # histograms and text readouts are not
                found[name] = int(value)
        return found

    async def config_dump(self) -> dict[str, Any]:
        """The configuration as it is in force, endpoints included, keys redacted by Envoy."""
        dump: dict[str, Any] = json.loads(await self.get("/config_dump?include_eds"))
        return dump

    async def _ask(self, method: str, path: str) -> str:
        status, body = await self._exchange(method, path)
        if status >= 400:  # noqa: PLR2004
            raise HairpinError(f"Envoy's admin interface answers {method} {path} with {status}: {body.strip()[:200]}")
        return body

    async def _exchange(self, method: str, path: str) -> tuple[int, str]:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._connect_and_exchange(method, path)
        except TimeoutError as e:
            raise UnavailableError(f"Envoy's admin interface does not answer {path} within {self._seconds:g} s") from e
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as e:
            raise UnavailableError(f"Envoy's admin interface does not answer {path}: {e}") from e

    async def _connect_and_exchange(self, method: str, path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=_LARGEST_HEAD)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status = int(head.split(" ", 2)[1])
            if "\r\ntransfer-encoding: chunked\r\n" in head:
                body = await _read_chunked(reader)
            else:
                body = await reader.read()
            return status, body.decode(errors="replace")
        finally:
            writer.close()


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)
