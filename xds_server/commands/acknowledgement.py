"""What a sidecar made of the plumbing: its own configuration dump says it, through the API server's port-forward."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hairpin.errors import HairpinError
from hairpin.kubernetes.portforward import forward
from xds_server.generate.steer import match_filter_name

if TYPE_CHECKING:
    from hairpin.kubernetes.api import Api
    from xds_server.model.cluster import PodFacts

ADMIN_PORT = 15000
"""Of Istio's sidecars; on the pod's own loopback."""

_POLL_SECONDS = 0.5
_DUMP = "/config_dump?resource=dynamic_listeners"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What Envoy said of the listener, when it refused it."""

    reason: str


async def acknowledged(api: Api, pod: PodFacts, port: int, *, present: bool, seconds: float) -> Refusal | None:
    """Wait until a pod's sidecar has the plumbing of a port, or has it no more.

    Returns:
        the refusal, if there was one.

    Raises:
        HairpinError: the sidecar can't be asked, or has not changed in time.
    """
    errors: list[HairpinError] = []
    last = "it has not changed its listener"
    async with forward(api, pod.key.namespace, pod.key.name, ADMIN_PORT, on_error=errors.append) as (host, local):
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        listeners = await _listeners(f"http://{host}:{local}{_DUMP}")
                    except HairpinError as error:
                        last = str(errors[-1] if errors else error)
                    else:
                        if refusal := refused(listeners, port):
                            return refusal
                        if has_plumbing(listeners, port) is present:
                            return None
                        last = "it has not changed its listener"
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise HairpinError(f"the sidecar of pod {pod.key} did not answer for it in {seconds:g} s: {last}") from None


def has_plumbing(listeners: list[dict[str, Any]], port: int) -> bool:
    """Whether a listener that is in force has a port's match filter."""
    wanted = json.dumps(match_filter_name(port))
    return any(wanted in json.dumps(listener.get("active_state", {})) for listener in listeners)


def refused(listeners: list[dict[str, Any]], port: int) -> Refusal | None:
    """Why a listener with a port's match filter was refused."""
    wanted = json.dumps(match_filter_name(port))
    for listener in listeners:
        error = listener.get("error_state")
        if error and wanted in json.dumps(error.get("failed_configuration", {})):
            return Refusal(str(error.get("details") or "Envoy gave no reason"))
    return None


async def _listeners(url: str) -> list[dict[str, Any]]:
    import aiohttp  # noqa: PLC0415 # not for --version

    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            dump = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise HairpinError(f"its admin interface does not answer: {str(error) or 'no answer in time'}") from error
    configs = dump.get("configs", []) if isinstance(dump, dict) else []
    return [config for config in configs if isinstance(config, dict)]
