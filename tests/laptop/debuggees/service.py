"""Answers every request with what it adds up."""

import http.server
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        total = 40 + 2
        body = f'{{"who": "{NAME}", "total": {total}}}'.encode()  # breakpoint
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


NAME = sys.argv[1]
if __name__ == "__main__":
    server = http.server.HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
    print("serving", flush=True)
    server.serve_forever()
