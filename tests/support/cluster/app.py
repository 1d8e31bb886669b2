"""The applications of the mesh under test: the echo server, whose answer to `/` holds the next service's own.

`python -m tests.support.cluster.app NAME [NEXT]`, in a pod. `NEXT` is a URL; `x-env`, `baggage` and `traceparent` go along.
Ports come from PORT (8080) and GRPC_PORT (7070). The pod's name is under `pod`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from tests.support import echo, echo_http
from tests.support.outgoing import OutgoingError, call


def chained(following: str) -> Callable[[echo_http.Exchange], Coroutine[Any, Any, None]]:
    """An endpoint that asks the next service, where there is one, and says what that answered."""

    async def answer(exchange: echo_http.Exchange) -> None:
        fields: dict[str, Any] = {
            "pod": socket.gethostname(),
            "method": exchange.scope["method"],
            "protocol": exchange.scope["http_version"],
            "path": exchange.scope["path"],
            "headers": exchange.headers,
        }
        if following:
            passed = {name: exchange.headers[name] for name in echo_http.PASSED_ON if name in exchange.headers}
            try:
                fields["next"] = (await call(following, passed))["answer"]
            except OutgoingError as error:
                fields["next"] = {"error": str(error)}
        await exchange.answer(fields)

    return answer


def main() -> None:
    """Serves until SIGTERM."""
    name, *following = sys.argv[1:]
    echo_http.ENDPOINTS["/"] = chained(*(following or [""]))
    host, port, grpc_port = "0.0.0.0", int(os.environ.get("PORT", "8080")), int(os.environ.get("GRPC_PORT", "7070"))
    asyncio.run(echo.serve(name, host, port, grpc_port))


if __name__ == "__main__":
    main()
