"""Into a network namespace from outside: a socket that lives in it, and a relay from loopback to an address in it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
BLOCK = 65536
_libc = ctypes.CDLL(None, use_errno=True)


def namespace_path(name: str) -> Path:
    """Where `ip netns` has a namespace."""
    return Path("/run/netns", name)


def socket_in(namespace: Path) -> socket.socket:
    """A TCP socket in a network namespace, which it keeps whoever uses it. Needs root.

    Raises:
        OSError: there is no such namespace, or we may not enter it.
    """
    made: list[socket.socket | OSError] = []

    def make() -> None:  # a thread has a network namespace of its own, and ends with it
        try:
            descriptor = os.open(namespace, os.O_RDONLY)
            try:
                if _libc.setns(descriptor, CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(namespace))
            finally:
                os.close(descriptor)
            made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    made[0].setblocking(False)
    return made[0]


async def connect_in(namespace: Path, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection made from inside of a network namespace."""
    endpoint = socket_in(namespace)
    try:
        await asyncio.get_running_loop().sock_connect(endpoint, (host, port))
    except BaseException:
        endpoint.close()
        raise
    return await asyncio.open_connection(sock=endpoint)


@contextlib.asynccontextmanager
async def relay(namespace: Path, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """An address on our own loopback whose connections go on from inside of the namespace. Half-closes are passed on."""
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        try:
            there, back = await connect_in(namespace, host, port)
        except OSError:
            writer.close()
            return
        open_writers.add(back)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            for end in (writer, back):
                open_writers.discard(end)
                end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        address: tuple[str, int] = server.sockets[0].getsockname()[:2]
        yield address
    finally:
        server.close()
        for writer in list(open_writers):
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
        writer.write_eof()
        return
    writer.transport.abort()
