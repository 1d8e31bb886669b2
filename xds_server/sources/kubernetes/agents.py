"""Agents as callers: who they are by their token and their pod, and what their replicas report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hairpin.kubernetes.installation import AUDIENCE, NAME
from hairpin.kubernetes.kinds import TOKEN_REVIEWS
from hairpin.model.mesh import AGENT
from hairpin.tokens import token_hash
from xds_server.model.cluster import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hairpin.kubernetes.api import Api, JsonObject
    from xds_server.model.cluster import PodFacts

_AGENT_LABELS = {NAME: AGENT}
_REMEMBERED = 10.0
"""Seconds that a verdict on a token holds."""
_MOST = 1000
_ACCOUNT = "system:serviceaccount:"
_POD = "authentication.kubernetes.io/pod-name"


@dataclass(frozen=True, slots=True)
class AgentCaller:
    """An agent's replica, as its token and the cluster say."""

    pod: Key
    service_account: str

    @property
    def names(self) -> tuple[str, str]:
        """What it may call itself."""
        return self.pod.name, f"{self.pod.name}.{self.pod.namespace}"


def is_agent(pod: PodFacts | None, service_account: str) -> bool:
    """Whether a pod is a living agent under this account."""
    return (
        pod is not None
        and _AGENT_LABELS.items() <= pod.labels.items()
        and pod.service_account == service_account
        and not pod.terminating
    )


class TokenReviewer:
    """Asks the API server whose a token is, and remembers for some seconds."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._verdicts: dict[str, tuple[float, AgentCaller | None]] = {}

    async def caller(self, token: str) -> AgentCaller | None:
        """Whose it is; None if no pod's.

        Raises:
            HairpinError: the API server can't be asked.
        """
        digest, now = token_hash(token), time.monotonic()
        end, caller = self._verdicts.get(digest, (0.0, None))
        if now < end:
            return caller
        review = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.name,
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        answer = await self._api.create(TOKEN_REVIEWS, review)
        caller = _caller(answer.get("status") or {})
        self._verdicts[digest] = now + _REMEMBERED, caller
        while len(self._verdicts) > _MOST:
            del self._verdicts[next(iter(self._verdicts))]
        return caller


def _caller(status: JsonObject) -> AgentCaller | None:
    user = status.get("user") or {}
    name = str(user.get("username") or "")
    pods = (user.get("extra") or {}).get(_POD) or []
    if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
        return None
    namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
    if not name.startswith(_ACCOUNT) or len(pods) != 1:
        return None
    return AgentCaller(Key(namespace, str(pods[0])), account)


class AgentReports:
    """The tunnels by replica, as the replicas' streams say. A stream that a newer one replaced says nothing any more."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._tunnels: dict[Key, frozenset[str]] = {}
        self._streams: dict[Key, object] = {}
        self.versions: dict[Key, str] = {}
        """Which hairpin each replica said that it is."""

    @property
    def tunnels(self) -> Mapping[Key, frozenset[str]]:
        """By pod; empty for a replica whose stream broke off."""
        return self._tunnels

    def open(self, pod: Key, version: str = "") -> object:
        """A new stream of this replica's, by which it reports, and which hairpin it is."""
        if self.versions.get(pod, "") != version:
            self.versions[pod] = version
            self._changed()
        stream = self._streams[pod] = object()
        return stream

    def report(self, pod: Key, stream: object, tunnels: frozenset[str]) -> None:
        """The replica's whole state."""
        if self._streams.get(pod) is stream and self._tunnels.get(pod) != tunnels:
            self._tunnels[pod] = tunnels
            self._changed()

    def close(self, pod: Key, stream: object) -> None:
        """The stream ended."""
        if self._streams.get(pod) is stream:
            del self._streams[pod]
            if self._tunnels.get(pod):
                self._tunnels[pod] = frozenset()
                self._changed()

    def keep(self, exists: Callable[[Key], bool]) -> None:
        """Forget replicas that are no more."""
        for pod in [pod for pod in self._tunnels if pod not in self._streams and not exists(pod)]:
            del self._tunnels[pod]
            self.versions.pop(pod, None)

    def clear(self) -> None:
        """Another leads now: nothing is known any more."""
        self._tunnels.clear()
        self._streams.clear()
