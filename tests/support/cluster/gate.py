"""A way into a network namespace: a loopback port whose connections go on from inside. Run as a script, in a process of its own.

    gate.py NAMESPACE HOST PORT     prints the loopback port, and serves until it is killed

In a process of its own it answers whatever the tests' event loop is busy with, and a connection that breaks is no test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys

_CLONE_NEWNET = 0x40000000
_BLOCK = 65536


async def serve(listener: socket.socket, host: str, port: int) -> None:
    """Passes bytes both ways, and the end of each way."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(host, port)
            await asyncio.gather(pump(reader, back), pump(there, writer))
            back.close()
        writer.close()

    server = await asyncio.start_server(connected, sock=listener)
    print(listener.getsockname()[1], flush=True)
    await server.serve_forever()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One way."""
    try:
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def enter(namespace: str) -> None:
    """Moves this process into a network namespace. What it has open stays where it was."""
    descriptor = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        sys.exit(f"{namespace}: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)


def main(namespace: str, host: str, port: str) -> None:
    """The command."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    enter(namespace)
    asyncio.run(serve(listener, host, int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
