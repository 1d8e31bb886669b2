"""The shop's checkout: takes a cart, `/?mug=2&cap=1`, asks the inventory for prices and adds them up."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

SERVICE, VERSION = "checkout", "1"
INVENTORY = "http://inventory/"
PASSED_ON = ("x-env", "baggage", "traceparent")  # what keeps a request in its environment and its trace


def total(cart: dict[str, int], prices: dict[str, float]) -> float:
    subtotal = sum(prices[item] * count for item, count in cart.items())
    discount = 0.10 if subtotal >= 50 else 0.0  # a good line for a breakpoint
    return round(subtotal * (1 - discount), 2)


def call(url: str, headers: dict[str, str]) -> tuple[Any, str]:
    """What another service answered, and what was wrong, if anything was."""
    try:  # No timeout: someone may be holding that service at a breakpoint.
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return json.load(response), ""
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return json.loads(text) if text.startswith("{") else text, f"{url.partition('?')[0]} answered {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return None, f"{url.partition('?')[0]} can't be called: {error}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    where = "cluster"

    def do_GET(self) -> None:
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        inventory, wrong = call(INVENTORY, headers)
        status, answer = 502, {"error": wrong, "downstream": inventory}
        if not wrong:
            query = dict(parse_qsl(urlsplit(self.path).query)) or {"mug": "1"}
            try:
                cart = {item: int(count) for item, count in query.items()}
                status, answer = 200, {"total": total(cart, inventory["prices"]), "cart": cart, "downstream": inventory}
            except (KeyError, ValueError) as error:
                status, answer = 400, {"error": f"not a cart we can price: {error}", "downstream": inventory}
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
