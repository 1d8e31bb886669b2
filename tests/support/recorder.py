"""A process that gets copies: it writes down each request, one JSON object a line on stdout, and answers what nobody wants.

`python -m tests.support.recorder [--port P] [--hold]`: HTTP/1.1, and HTTP/2 by prior knowledge. With `--hold` it never
answers, as a process at a breakpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import socket
from typing import Any

import hypercorn.asyncio

from tests.support.echo import http_configuration

Message = dict[str, Any]
ANSWER = b"the laptop's own answer"


class Recorder:
    """The application."""

    def __init__(self, *, hold: bool) -> None:
        self._hold = hold

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        whole, length, more = hashlib.sha256(), 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            whole.update(message.get("body", b""))
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        print(json.dumps(_line(scope, length, whole.hexdigest())), flush=True)
        if self._hold:
            await asyncio.Event().wait()
        headers = [(b"x-who", b"the laptop"), (b"set-cookie", b"from=laptop")]
        await send({"type": "http.response.start", "status": 418, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})


def _line(scope: Message, length: int, digest: str) -> Message:
    query = scope["query_string"].decode("latin1")
    return {
        "version": scope["http_version"],
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin1") + (f"?{query}" if query else ""),
        "headers": {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]},
        "length": length,
        "sha256": digest,
    }


def recorded(lines: list[str]) -> list[Message]:
    """What a recorder's output says."""
    return [json.loads(line) for line in lines if line.startswith('{"version"')]


async def serve(port: int, *, hold: bool) -> None:
    """Until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, os._exit, 0)
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    # With a trigger of its own, hypercorn leaves the signals alone; its own way to end waits for what is held.
    recorder: Any = Recorder(hold=hold)
    await hypercorn.asyncio.serve(recorder, http_configuration(listener), shutdown_trigger=asyncio.Event().wait)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--hold", action="store_true", help="never answer")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, hold=arguments.hold))


if __name__ == "__main__":
    main()
