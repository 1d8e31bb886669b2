"""A model of Envoy as a discovery client: what it subscribes to, when it answers, and what it has.

Like Envoy it asks for the endpoints of its clusters and the routes of its listeners, holds the ACK of clusters back
until they are warm, keeps an old listener until the new one's routes are there, sends new subscriptions before the ACK
of what caused them, ignores the removal of routes and extension configurations, and refuses a response that has
something bad in it (of which it may apply the rest).

Bodies are `NAME=CONTENT`; a listener's content begins with the name of its route, a route's and an extension's with
that of its cluster; content with `bad` in it is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from tests.support.xds import CDS, ECDS, EDS, LDS, RDS, delta, request
from xds_server.model.resource import Resource
from xds_server.protocol.actions import SendResponse, Variant
from xds_server.protocol.frames import DeltaDiscoveryRequest, DiscoveryRequest

Request = DiscoveryRequest | DeltaDiscoveryRequest
EXTENSION = "e"


def content(resource: Resource) -> str:
    return resource.body.decode().split("=", 1)[1]


def refers_to(resource: Resource) -> str:
    return content(resource).split()[0]


def is_bad(resource: Resource) -> bool:
    return "bad" in content(resource)


@dataclass
class ModelEnvoy:
    variant: Variant
    requests: deque[Request] = field(default_factory=deque)
    """On their way to the server."""
    has: dict[str, dict[str, Resource]] = field(default_factory=lambda: {t: {} for t in (CDS, EDS, LDS, RDS, ECDS)})
    accepted: dict[str, dict[str, str]] = field(default_factory=lambda: {t: {} for t in (CDS, EDS, LDS, RDS, ECDS)})
    """Versions as the client would tell them after a reconnect."""
    subscribed: dict[str, set[str]] = field(default_factory=dict)
    nonces: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    warming_clusters: set[str] = field(default_factory=set)
    warming_listeners: dict[str, Resource] = field(default_factory=dict)
    untold: set[tuple[str, str]] = field(default_factory=set)
    """What it applied of refused responses: it would tell a new stream the versions from before."""
    unanswered: str | None = None
    """The nonce of clusters that are warming up."""
    owes_clusters: bool = False
    apply_rest: bool = True

    def connect(self) -> None:
        """Begin a stream, the first or another one."""
        self.requests.clear()
        self.nonces.clear()
        self.subscribed.clear()
        self.unanswered = None
        self.owes_clusters = bool(self.warming_clusters)
        if not self.owes_clusters:
            self._first(CDS, set())
        self._first(LDS, set())
        self._resubscribe()

    def receive(self, response: SendResponse) -> None:
        """Take a response; what follows is in `requests`."""
        type_url = response.type_url
        self.nonces[type_url] = response.nonce
        if type_url in (EDS, RDS, ECDS):
            # What it asks for no longer has no taker.
            wanted = tuple(r for r in response.resources if r.name in self.subscribed[type_url])
            response = replace(response, resources=wanted)
        bad = [resource for resource in response.resources if is_bad(resource)]
        good = [resource for resource in response.resources if resource not in bad]
        told = {(type_url, name) for name in (*(r.name for r in good), *response.removed)}
        if not bad or self.apply_rest:
            self._apply(response, good)
        if bad:
            self.untold |= told
        self._resubscribe()
        if bad:
            self._answer(type_url, error=f"bad: {bad}")
            return
        self.untold -= told
        self.versions[type_url] = response.version
        self.accepted[type_url].update({resource.name: resource.version for resource in response.resources})
        for name in response.removed:
            self.accepted[type_url].pop(name, None)
        if type_url == CDS and self.warming_clusters:
            self.unanswered = response.nonce
        else:
            self._answer(type_url)
        self._warmed()

    def time_out(self, names: Collection[str]) -> None:
        """Go on without endpoints for these clusters, as Envoy does after `initial_fetch_timeout`."""
        self.warming_clusters -= set(names)
        self._warmed()

    def dangling(self) -> list[str]:
        """What is in use and refers to a cluster that is not there."""
        users = [*self.has[ECDS].values()]
        for listener in self.has[LDS].values():
            used = self.has[RDS].get(refers_to(listener))
            users += [] if used is None else [used]
        return [f"{user.name} -> {refers_to(user)}" for user in users if refers_to(user) not in self.has[CDS]]

    def _apply(self, response: SendResponse, good: list[Resource]) -> None:
        type_url = response.type_url
        has = self.has[type_url]
        if type_url == CDS:
            self.warming_clusters |= {r.name for r in good if has.get(r.name) != r}
        if type_url == EDS:
            self.warming_clusters -= {*(r.name for r in good), *response.removed}
        self._lose(type_url, self._gone(response))
        for resource in good:
            if type_url == LDS and refers_to(resource) not in self.has[RDS]:
                self.warming_listeners[resource.name] = resource
            else:
                has[resource.name] = resource
                if type_url == LDS:
                    self.warming_listeners.pop(resource.name, None)
        for name, listener in list(self.warming_listeners.items()):
            if refers_to(listener) in self.has[RDS]:
                self.has[LDS][name] = self.warming_listeners.pop(name)

    def _gone(self, response: SendResponse) -> set[str]:
        if response.type_url in (RDS, ECDS):
            return set()
        if self.variant is Variant.SOTW and response.type_url in (CDS, LDS):
            listeners = self.warming_listeners if response.type_url == LDS else {}
            return {*self.has[response.type_url], *listeners} - {r.name for r in response.resources}
        return set(response.removed)

    def _lose(self, type_url: str, names: set[str]) -> None:
        for name in names:
            self.has[type_url].pop(name, None)
            if type_url == CDS:
                self.warming_clusters.discard(name)
            if type_url == LDS:
                self.warming_listeners.pop(name, None)

    def _resubscribe(self) -> None:
        """Ask for the endpoints of all clusters, the routes of all listeners, and the extension they share."""
        listeners = [*self.has[LDS].values(), *self.warming_listeners.values()]
        wanted = {
            EDS: set(self.has[CDS]),
            RDS: {refers_to(listener) for listener in listeners},
            ECDS: {EXTENSION} if listeners else set(),
        }
        for type_url, names in wanted.items():
            self.untold = {(t, name) for t, name in self.untold if t != type_url or name in names}
            for name in {*self.has[type_url], *self.accepted[type_url]} - names:
                self.accepted[type_url].pop(name, None)
                self.has[type_url].pop(name, None)
            if type_url not in self.subscribed:
                if names:
                    self._first(type_url, names)
            elif names != self.subscribed[type_url]:
                came, went = names - self.subscribed[type_url], self.subscribed[type_url] - names
                self.subscribed[type_url] = names
                if self.variant is Variant.DELTA:
                    self.requests.append(delta(type_url, *sorted(came), unsubscribe=sorted(went)))
                else:
                    self._answer(type_url)

    def _first(self, type_url: str, names: set[str]) -> None:
        self.subscribed[type_url] = names
        if self.variant is Variant.DELTA:
            has = {name: v for name, v in self.accepted[type_url].items() if type_url in (CDS, LDS) or name in names}
            self.requests.append(delta(type_url, *sorted(names), has=has))
        else:
            self.requests.append(request(type_url, *sorted(names), version=self.versions.get(type_url, "")))

    def _answer(self, type_url: str, *, error: str = "", nonce: str | None = None) -> None:
        nonce = self.nonces.get(type_url, "") if nonce is None else nonce
        if self.variant is Variant.DELTA:
            self.requests.append(delta(type_url, nonce=nonce, error=error))
        else:
            self.requests.append(request(type_url, *sorted(self.subscribed[type_url]), nonce=nonce, error=error))

    def _warmed(self) -> None:
        if self.warming_clusters:
            return
        if self.unanswered is not None:
            nonce, self.unanswered = self.unanswered, None
            self._answer(CDS, nonce=nonce)
        if self.owes_clusters:
            self.owes_clusters = False
            self._first(CDS, set())
