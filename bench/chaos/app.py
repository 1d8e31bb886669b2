"""The application under chaos: it writes down which requests reached it, where a `kill -9` can't take it away.

    python -m bench.chaos.app --name NAME --port PORT --journal FILE [--host HOST]

HTTP/1.1 alone, as small as it can be, so that it is up again in no time. Every answer bears `x-who: NAME`. `/delay?ms=N`
answers after N milliseconds, `/stream?ms=N` at once, with a body that takes N milliseconds. A request that bears
`x-request-key` is a line of the journal, `NAME KEY`, as soon as its head is there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from urllib.parse import parse_qs, urlsplit

CHUNK_SECONDS = 0.02
"""Between two chunks of a stream."""


class App:
    """One server's handler of connections."""

    def __init__(self, name: str, journal: int) -> None:
        self._name = name
        self._journal = journal

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a connection's requests, one after the other, until it ends."""
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if key := headers.get("x-request-key"):
            os.write(self._journal, f"{self._name} {key}\n".encode())
        await reader.readexactly(int(headers.get("content-length", "0")))
        url = urlsplit(request.split(" ")[1])
        seconds = int(parse_qs(url.query).get("ms", ["0"])[0]) / 1000
        if url.path == "/stream":
            await self._stream(writer, seconds)
            return
        await asyncio.sleep(seconds)
        writer.write(f"HTTP/1.1 200 OK\r\nx-who: {self._name}\r\ncontent-length: 3\r\n\r\nok\n".encode())
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, seconds: float) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nx-who: {self._name}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(max(1, round(seconds / CHUNK_SECONDS))):
            writer.write(b"3\r\nok\n\r\n")
            await writer.drain()
            await asyncio.sleep(CHUNK_SECONDS)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def serve(name: str, host: str, port: int, journal: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(App(name, journal), host, port, backlog=1024)
    async with server:
        await server.serve_forever()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    journal = os.open(arguments.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it as such, so that the shell around it ends too
    asyncio.run(serve(arguments.name, arguments.host, arguments.port, journal))


if __name__ == "__main__":
    main()
