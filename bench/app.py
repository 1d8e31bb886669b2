"""The application under load: an Envoy that answers by itself, so that what is measured is the way to it.

    python -m bench.app PORT NAME [HOST]

Every answer is 1 KiB and bears `x-who: NAME`.
"""

from __future__ import annotations

import json
import os
import sys

from hairpin.envoy import config
from hairpin.envoy.binary import find_envoy

BODY = "x" * 1023 + "\n"


def bootstrap(port: int, name: str, host: str) -> config.Config:
    """A listener that answers everything."""
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": BODY}},
        "response_headers_to_add": [config.set_header("x-who", name)],
    }
    manager = config.http_manager("app", route_config={"virtual_hosts": [config.virtual_host("app", answer)]})
    listener = {"name": "app", "address": config.tcp(host, port), "filter_chains": [{"filters": [manager]}]}
    return {"static_resources": {"listeners": [listener]}}


def main() -> None:
    """Become the Envoy."""
    port, name, *rest = sys.argv[1:]
    host = rest[0] if rest else "127.0.0.1"
    envoy = str(find_envoy())
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    os.execv(envoy, [envoy, "--config-yaml", json.dumps(bootstrap(int(port), name, host)), *options])


if __name__ == "__main__":
    main()
