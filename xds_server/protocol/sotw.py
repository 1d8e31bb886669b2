"""SotwStream: the state-of-the-world variant.

Every request carries the whole list of names. Clusters and listeners are answered with everything that the client
subscribes to (absence is removal); of the other types only what changed or was asked for is sent.

Since absence is removal, a response that drops clusters waits: until listeners, routes and extension configurations
that no longer refer to them are accepted, responses carry the new clusters and the old ones together. A client that
has reconnected does not say which clusters it has, so this holds only within a stream (delta has no such gap).
"""

from __future__ import annotations

from xds_server.model.resource import ResourceSet
from xds_server.model.snapshot import Snapshot
from xds_server.model.type_url import FULL_STATE, LATE_REMOVAL
from xds_server.protocol.actions import Record, Variant
from xds_server.protocol.discovery_pb2 import DiscoveryRequest
from xds_server.protocol.stream import DiscoveryStream, Plan
from xds_server.protocol.subscription import WILDCARD
from xds_server.protocol.type_state import UNKNOWN, Flight, TypeState


class SotwStream(DiscoveryStream[DiscoveryRequest]):
    """One StreamAggregatedResources stream."""

    variant = Variant.SOTW

    def _begin(self, state: TypeState, request: DiscoveryRequest) -> None:
        came, _ = state.subscription.replace(request.resource_names)
        # A client with a version has reconnected: it goes on with what it has and can wait for its turn.
        state.urgent = set() if request.version_info else came - {WILDCARD}
        state.answer = bool(came)

    def _continue(self, state: TypeState, request: DiscoveryRequest) -> list[Record]:
        if state.nonce not in ("", request.response_nonce):
            # It was sent before our last response arrived, and will be repeated in answer to that.
            return [self._stale(state, request.response_nonce)]
        records: list[Record] = []
        if state.flight is not None:
            records.append(self._answered(state, request))
        came, went = state.subscription.replace(request.resource_names)
        if came:
            state.urgent |= came - {WILDCARD}
            state.answer = True
            self._unsent.add(state.type_url)
        if went:
            state.forget_uncovered()
            state.gone = frozenset(name for name in state.gone if state.subscription.covers(name))
            self._unsent.add(state.type_url)
        return records

    def _plan(self, state: TypeState, snapshot: Snapshot) -> Plan | None:
        if state.type_url in FULL_STATE:
            return self._plan_whole(state, snapshot)
        due = self._changed(state, snapshot)
        return Plan(version=snapshot.version(state.type_url), resources=tuple(due)) if due else None

    def _plan_whole(self, state: TypeState, snapshot: Snapshot) -> Plan | None:
        target = state.subscription.select(snapshot.resources(state.type_url))
        if state.refused_version == target.version:
            return None
        state.refused_version = ""
        content, state.gone = target, frozenset()
        if state.type_url in LATE_REMOVAL:
            kept = [resource for name, resource in state.held.items() if name not in target]
            if kept:
                content = ResourceSet([*target.values(), *kept])
                state.gone = frozenset(resource.name for resource in kept)
        if content.version == state.sent_version and not state.answer:
            return None
        return self._whole(state, content, target)

    def _plan_removal(self, state: TypeState, snapshot: Snapshot) -> Plan:
        target = state.subscription.select(snapshot.resources(state.type_url))
        return self._whole(state, target, target)

    def _whole(self, state: TypeState, content: ResourceSet, target: ResourceSet) -> Plan:
        state.sent_version = content.version
        return Plan(version=content.version, resources=tuple(content.values()), whole=content, target=target.version)

    def _accepted(self, state: TypeState, flight: Flight) -> None:
        if flight.whole is not None:
            state.held = {name: r for name, r in flight.whole.items() if state.subscription.covers(name)}
            state.sent = {name: resource.version for name, resource in state.held.items()}

    def _refused(self, state: TypeState, flight: Flight) -> None:
        if flight.whole is None:
            super()._refused(state, flight)
            return
        # It may have applied a part: everything it was ever offered counts as held until it accepts a response.
        state.refused_version, state.sent_version = flight.target, UNKNOWN
        self._unsent.add(state.type_url)
