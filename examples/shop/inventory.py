"""The shop's inventory: knows what there is and what it costs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

SERVICE, VERSION = "inventory", "1"
PRICES = {"mug": 9.5, "cap": 14.0, "shirt": 24.0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    where = "cluster"

    def do_GET(self) -> None:
        status, answer = 200, {"prices": PRICES}
        body = (json.dumps(self.who() | answer, indent=2) + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def who(self) -> dict[str, Any]:
        # The sidecars say who called, hop by hop. Our own name means that our sidecar passed the request on.
        callers = re.findall(r"URI=([^;,]+)", self.headers.get("x-forwarded-client-cert", ""))
        caller = next((uri for uri in reversed(callers) if not uri.endswith(f"/sa/{SERVICE}")), None)
        me = {"service": SERVICE, "where": self.where, "version": VERSION}
        return me | {"caller": caller, "environment": self.headers.get("x-env")}


class Server(ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    laptop = os.environ.get("HAIRPIN_ENV") or os.environ.get("HAIRPIN_SESSION")  # set by `hairpin run`
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=os.environ.get("PORT", "0"), help="0, the default: any free one")
    parser.add_argument("--name", default=f"laptop of {laptop}" if laptop else "cluster", help="where this one runs")
    arguments = parser.parse_args()
    Handler.where = arguments.name
    with Server(("127.0.0.1", arguments.port), Handler) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"{SERVICE} ({Handler.where}) listens on http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
