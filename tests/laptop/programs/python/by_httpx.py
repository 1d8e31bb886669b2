"""by_httpx.py URL CA: httpx on asyncio, whose connections are non-blocking and race IPv6 against IPv4."""

from __future__ import annotations

import asyncio
import ssl
import sys

import httpx
from finish import finish


async def call() -> str:
    """The status and the body."""
    context = ssl.create_default_context(cafile=sys.argv[2])
    async with httpx.AsyncClient(verify=context, timeout=20) as client:
        response = await client.get(sys.argv[1])
        return f"{response.status_code} {response.text}"


finish(lambda: asyncio.run(call()))
