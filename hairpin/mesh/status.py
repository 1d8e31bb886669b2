"""`hairpin mesh status`: each proxy, what it has acknowledged, and what it refused and why."""

from __future__ import annotations

import ssl
import sys
from http import HTTPStatus
from typing import Any

from hairpin.api import error_of, find_developer, read_developer
from hairpin.errors import UnavailableError


async def status(config: str | None) -> int:
    """Print the table; 1 if a proxy refuses what it was sent."""
    proxies = await fetch_proxies(config)
    refused = False
    for proxy in proxies:
        sys.stdout.write(f"{proxy['node']['id']}  {proxy['variant']}  since {proxy['connectedSince']}\n")
        for name, state in proxy["types"].items():
            nack = state.get("nack")
            refused = refused or nack is not None
            word = "in step" if state["synced"] else "behind"
            sys.stdout.write(f"  {name:<24} {'REFUSED: ' + nack['reason'] if nack else word}\n")
    return 1 if refused else 0


async def fetch_proxies(config: str | None) -> list[dict[str, Any]]:
    """The control plane's list of connected proxies.

    Raises:
        UnavailableError: it does not answer.
    """
    import aiohttp  # noqa: PLC0415 # heavy

    developer = read_developer(find_developer(config))
    context = ssl.create_default_context(cadata=developer.certificate_authority)
    headers = {"Authorization": f"Bearer {developer.token}"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.get(f"{developer.server}/v1/proxies", ssl=context) as response,
        ):
            body = await response.json()
            if response.status != HTTPStatus.OK:
                raise error_of(response.status, body)
            return list(body["items"])
    except aiohttp.ClientConnectionError as error:
        raise UnavailableError(
            f"the control plane at {developer.server} does not answer ({error}); is the mesh up?"
        ) from error
