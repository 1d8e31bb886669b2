"""by_grpcio.py HOST:PORT: one unary call by grpcio, which has its own event engine. Messages are JSON in raw bytes."""

from __future__ import annotations

import sys

import grpc
from finish import finish


def call() -> str:
    """The answer's JSON."""
    with grpc.insecure_channel(sys.argv[1]) as channel:
        answer = channel.unary_unary("/hairpin.test.Echo/Unary")(b'{"message": "hello"}', timeout=20)
        return f"200 {answer.decode()}"


finish(call)
