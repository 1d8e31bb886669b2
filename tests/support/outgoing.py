"""A request that leaves by the proxy variables of its process, as any program's would: absolute-form or by CONNECT."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import h11

RECEIVE_BYTES = 65536


class OutgoingError(Exception):
    """The request got no answer."""


async def call(url: str, headers: dict[str, str], *, tunnel: bool = False) -> dict[str, Any]:
    """GETs a plain `http://` URL: the answer's `status`, `headers` and `answer`, which is its JSON or else its text.

    Args:
        url: What to ask.
        headers: Sent along.
        tunnel: By CONNECT instead of in absolute form; the proxy is `http_proxy`'s.

    Raises:
        OutgoingError: No answer; says why.
    """
    try:
        return await (_by_connect(url, headers) if tunnel else _by_variables(url, headers))
    except (OSError, aiohttp.ClientError, h11.RemoteProtocolError) as error:
        raise OutgoingError(f"{url}: {type(error).__name__}: {error}") from error


async def _by_variables(url: str, headers: dict[str, str]) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(trust_env=True, timeout=timeout) as session,
        session.get(url, headers=headers) as response,
    ):
        found = {name.lower(): value for name, value in response.headers.items()}
        return {"status": response.status, "headers": found, "answer": _parsed(await response.text())}


async def _by_connect(url: str, headers: dict[str, str]) -> dict[str, Any]:
    proxy, target = urlsplit(urllib.request.getproxies()["http"]), urlsplit(url)
    address = f"{target.hostname}:{target.port or 80}"
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port)
    try:
        writer.write(f"CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        if head.split(" ")[1] != "200":
            raise OutgoingError(f"{url}: the proxy answered CONNECT with {head.splitlines()[0]}")
        connection = h11.Connection(h11.CLIENT)
        fields = [("host", target.netloc), ("connection", "close"), *headers.items()]
        request = h11.Request(method="GET", target=path, headers=fields)
        writer.write(connection.send(request) + connection.send(h11.EndOfMessage()))
        return await _read_answer(reader, connection)
    except asyncio.IncompleteReadError as error:
        raise OutgoingError(f"{url}: the proxy closed the connection at CONNECT") from error
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader, connection: h11.Connection) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(RECEIVE_BYTES))
        elif isinstance(event, h11.Response):
            found = {name.decode(): value.decode("latin1") for name, value in event.headers}
            answer |= {"status": event.status_code, "headers": found}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return answer | {"answer": _parsed(body.decode())}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
