"""A server that speaks TLS itself: `python -m tests.laptop.secure NAME HOST:PORT CERTIFICATE KEY`, where the last two are files.

Answers every request with who it is. Prints `listening on PORT`.
"""

from __future__ import annotations

import http.server
import json
import ssl
import sys


def main() -> None:
    """Serves until it is killed."""
    name, address, certificate, key = sys.argv[1:]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps({"who": name, "path": self.path, "host": self.headers["host"]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    # Each connection's handshake in its own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
