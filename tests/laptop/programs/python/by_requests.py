"""by_requests.py URL CA: requests, on blocking sockets and the C library's resolver."""

from __future__ import annotations

import sys

import requests
from finish import finish


def call() -> str:
    """The status and the body."""
    response = requests.get(sys.argv[1], verify=sys.argv[2], timeout=20)
    return f"{response.status_code} {response.text}"


finish(call)
