"""What agents are told of sessions: who may connect (by ADS, to Envoy) and whereto (to the agent's own judge).

Both replicas of the controller serve it, from the Sessions' statuses: what the leader wrote there holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from hairpin.model.egress import effective
from hairpin.model.egress_json import session_rules_to_json
from hairpin.model.mesh import spiffe_id
from hairpin.model.session import EgressIdentity, Phase
from xds_server.generate.egress import egress_resource
from xds_server.model.snapshot import Snapshot
from xds_server.server.errors import ForbiddenProxyError, NotReadyError
from xds_server.sources.kubernetes.agents import is_agent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xds_server.cache.snapshot_cache import SnapshotCache
    from xds_server.model.cluster import PodFacts, SessionFacts
    from xds_server.model.node import Node
    from xds_server.server.kubernetes.settings import Settings
    from xds_server.server.registry import PeerIdentity
    from xds_server.sources.kubernetes.cluster import ClusterWatch, NamespaceWatch

log = logging.getLogger(__name__)


class Egress:
    """The egress side of all served namespaces' sessions.

    Args:
        cluster: the informers.
        settings: trust domain, and what operators forbid.
        cache: what ADS serves.
    """

    def __init__(self, cluster: ClusterWatch, settings: Settings, cache: SnapshotCache) -> None:
        self._cluster = cluster
        self._settings = settings
        self._cache = cache
        self._groups: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        """By group, the sessions that its snapshot is of: whose connections leave there, and who may ask there."""

    async def run(self) -> None:
        """Keep the snapshots in step until cancelled."""
        changed = self._cluster.signal.subscribe()
        try:
            while True:
                changed.clear()
                self._refresh()
                await changed.wait()
        finally:
            self._cluster.signal.unsubscribe(changed)

    def authorize(self, peer: PeerIdentity, node: Node) -> str:
        """The group of an agent's Envoy: its certificate says the account, and a pod of that account must have the name.

        Raises:
            NotReadyError: the namespace is not known yet.
            ForbiddenProxyError: it is no agent of ours.
        """
        for watch in self._cluster.namespaces.values():
            for account in _accounts(watch):
                if spiffe_id(self._settings.trust_domain, watch.namespace, account) not in peer.uris:
                    continue
                if not watch.synced:
                    raise NotReadyError(f"namespace {watch.namespace} is not known yet")
                if any(node.id == f"agent~{p.key.name}.{p.key.namespace}" for p in _agents(watch, account)):
                    return group_of(watch.namespace, account)
        if self._cluster.known != frozenset(self._cluster.namespaces):
            raise NotReadyError("not every namespace is known yet")
        raise ForbiddenProxyError(f"{node.id!r} is not an agent of {peer}: its certificate decides what it may fetch")

    def policies(self, namespace: str, account: str) -> dict[str, Any]:
        """The rules of each session that may leave or ask at these agents, as the agents read them."""
        watch = self._cluster.namespaces[namespace]
        sessions = {}
        for session, _ in _sessions(watch, self._settings, account):
            environment = session.spec.environment if session.spec else None
            owner = session.spec.owner if session.spec else ""
            sessions[session.id] = session_rules_to_json(effective(watch.policy, owner, environment))
        return {"sessions": sessions, "forbidden": list(self._settings.forbidden)}

    def knows(self, namespace: str) -> bool:
        """Whether `policies` of this namespace are complete."""
        watch = self._cluster.namespaces.get(namespace)
        return watch is not None and watch.synced

    def _refresh(self) -> None:
        for watch in self._cluster.namespaces.values():
            if not watch.synced:
                continue  # an empty policy would cut everyone off
            for account in _accounts(watch):
                group = group_of(watch.namespace, account)
                found = sorted((session.id, leaves) for session, leaves in _sessions(watch, self._settings, account))
                names = tuple(tuple(name for name, leaves in found if leaves is here) for here in (True, False))
                if self._groups.get(group) != names:
                    self._groups[group] = (names[0], names[1])
                    self._cache.set(group, Snapshot.of([egress_resource(*names)]))


async def lines(egress: Egress, cluster: ClusterWatch, namespace: str, account: str, *, silence: float) -> Any:
    """The policies as NDJSON: at first, at each change, and again after a silence."""
    changed = cluster.signal.subscribe()
    before = None
    try:
        while True:
            changed.clear()
            policies = egress.policies(namespace, account)
            if policies != before:
                before = policies
                yield json.dumps(policies, separators=(",", ":")).encode() + b"\n"
            try:
                async with asyncio.timeout(silence):
                    await changed.wait()
            except TimeoutError:
                before = None
    finally:
        cluster.signal.unsubscribe(changed)


def group_of(namespace: str, account: str) -> str:
    """The cache's group of the agents of a namespace under one account."""
    return f"agent/{namespace}/{account}"


def _agents(watch: NamespaceWatch, account: str) -> Iterator[PodFacts]:
    return (pod for pod in watch.pods if is_agent(pod, account))


def _accounts(watch: NamespaceWatch) -> frozenset[str]:
    """The accounts that a namespace's agents run under."""
    return frozenset(pod.service_account for pod in watch.pods if is_agent(pod, pod.service_account))


def _sessions(watch: NamespaceWatch, settings: Settings, account: str) -> Iterator[tuple[SessionFacts, bool]]:
    """The sessions that may use the agents under this account, and whether their connections leave there.

    Those of which that is not so leave at agents under their target's account: at the steering agents they may ask.
    """
    identity = spiffe_id(settings.trust_domain, watch.namespace, account)
    for session in watch.sessions:
        status = session.status
        if session.spec is None or session.deleting or status.phase is Phase.REFUSED or not status.certificate:
            continue
        if session.spec.identity is EgressIdentity.TARGET:
            leaves_as = status.egress_identity
        else:
            leaves_as = status.egress_identity or status.agent_identity
        if identity in (leaves_as, status.agent_identity):
            yield session, leaves_as == identity
