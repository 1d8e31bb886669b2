"""`hairpin mesh status`: each proxy, what it has acknowledged, and what it refused and why."""

from __future__ import annotations

import ssl
import sys
from datetime import datetime
from http import HTTPStatus
from typing import Any

from hairpin.api import error_of, find_developer, read_developer
from hairpin.errors import UnavailableError


async def status(config: str | None) -> int:
    """Print the table; 1 if a proxy refuses what it was sent."""
    proxies = await fetch_proxies(config)
    lines, refused = table(proxies)
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if refused else 0


def table(proxies: list[dict[str, Any]]) -> tuple[list[str], int]:
    """A line for each proxy, one below it for each type that it refused or has not acknowledged yet, and a summary.

    Args:
        proxies: as the API has them.

    Returns:
        The lines, and how many proxies refuse something.
    """
    lines, refusing, behind = [], 0, 0
    width = max((len(proxy["node"]["id"]) for proxy in proxies), default=0)
    for proxy in proxies:
        nacks = {name: state["nack"]["reason"] for name, state in proxy["types"].items() if "nack" in state}
        late = [name for name, state in proxy["types"].items() if not state["synced"] and name not in nacks]
        word = "refuses" if nacks else "behind" if late else "in step"
        refusing, behind = refusing + bool(nacks), behind + bool(late and not nacks)
        since = datetime.fromisoformat(proxy["connectedSince"]).astimezone()
        lines.append(f"{proxy['node']['id']:<{width}}  {word:<8} connected since {since:%H:%M:%S}, {proxy['variant']}")
        lines += [f"    {name} refused: {' '.join(reason.split())}" for name, reason in nacks.items()]
        lines += [f"    {name} not acknowledged yet" for name in late]
    total = f"{len(proxies)} proxies: "
    if not refusing and not behind:
        return [*lines, total + "all in step"], 0
    return [*lines, total + f"{refusing} refuse what they were sent, {behind} behind"], refusing


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
        raise UnavailableError(f"the control plane at {developer.server} does not answer: is the mesh up?") from error
