"""One server that speaks everything a mesh carries, and says who it is in each answer.

`python -m tests.support.echo --name NAME --port P --grpc-port G`: HTTP/1.1, HTTP/2 by prior knowledge and WebSocket on the
one port, gRPC on the other. Prints `listening http=P grpc=G` when it is ready, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket

import hypercorn.asyncio
import hypercorn.config

from tests.support import echo_grpc
from tests.support.echo_http import EchoApplication, Shared

GRACE_SECONDS = 0.5
NEVER = 10**9


def http_configuration(listener: socket.socket) -> hypercorn.config.Config:
    """Hypercorn, without the limits that would end a test's connection: five idle seconds, a thousand requests."""
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_timeout = NEVER
    config.keep_alive_max_requests = NEVER
    config.h2_max_concurrent_streams = 1000
    config.graceful_timeout = NEVER  # `serve` has its own
    config.backlog = 1024
    config.loglevel = "WARNING"
    return config


async def serve(name: str, host: str, port: int, grpc_port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    shared = Shared(name)
    listener = socket.create_server((host, port), backlog=1024)
    grpc_server, bound = await echo_grpc.start(shared, host, grpc_port)
    async with asyncio.TaskGroup() as group:
        config = http_configuration(listener)
        http = group.create_task(
            hypercorn.asyncio.serve(EchoApplication(shared), config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
        )
        print(f"listening http={listener.getsockname()[1]} grpc={bound}", flush=True)
        await stop.wait()
        await grpc_server.stop(GRACE_SECONDS)
        await asyncio.wait([http], timeout=GRACE_SECONDS)
        if not http.done():
            # Requests still wait. Cancelled, hypercorn would answer each with a 500 that no one meant; a process that
            # ends closes their connections.
            os._exit(0)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="who it says it is")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", "0"), help="HTTP; 0 takes a free one")
    parser.add_argument("--grpc-port", type=int, default=0, help="gRPC; 0 takes a free one")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.name, arguments.host, arguments.port, arguments.grpc_port))


if __name__ == "__main__":
    main()
