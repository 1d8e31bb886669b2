"""The application under load: an Envoy that answers by itself, so that what is measured is the way to it.

    python -m bench.app PORT NAME [HOST] [--delay SECONDS]

Every answer is 1 KiB and bears `x-who: NAME`; a slow one's comes SECONDS later.
"""

from __future__ import annotations

import argparse
import json
import os

from hairpin.envoy import config
from hairpin.envoy.binary import find_envoy

BODY = "x" * 1023 + "\n"


def bootstrap(port: int, name: str, host: str, delay: float = 0.0) -> config.Config:
    """A listener that answers everything, `delay` seconds after it was asked."""
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": BODY}},
        "response_headers_to_add": [config.set_header("x-who", name)],
    }
    late = {"fixed_delay": f"{delay}s", "percentage": {"numerator": 100}}
    slow = config.typed("envoy.filters.http.fault", "extensions.filters.http.fault.v3.HTTPFault", delay=late)
    manager = config.http_manager(
        "app",
        filters=(slow,) if delay else (),
        route_config={"virtual_hosts": [config.virtual_host("app", answer)]},
    )
    listener = {"name": "app", "address": config.tcp(host, port), "filter_chains": [{"filters": [manager]}]}
    return {"static_resources": {"listeners": [listener]}}


def main() -> None:
    """Become the Envoy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("--delay", type=float, default=0.0)
    given = parser.parse_args()
    envoy = str(find_envoy())
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    os.execv(
        envoy,
        [envoy, "--config-yaml", json.dumps(bootstrap(given.port, given.name, given.host, given.delay)), *options],
    )


if __name__ == "__main__":
    main()
