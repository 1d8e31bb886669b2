"""DeltaStream: the incremental variant.

Requests carry increments of the subscription, responses carry what changed and the names of what is gone. Increments
count even in a request whose nonce is old (they would be lost otherwise; Istio drops such a request whole), the nonce
is only for the ACK.
"""

from __future__ import annotations

from xds_server.model.snapshot import Snapshot
from xds_server.model.type_url import LATE_REMOVAL, NEVER_REMOVED, TypeUrl
from xds_server.protocol.actions import Record, Variant
from xds_server.protocol.discovery_pb2 import DeltaDiscoveryRequest
from xds_server.protocol.stream import DiscoveryStream, Plan
from xds_server.protocol.subscription import WILDCARD
from xds_server.protocol.type_state import REMOVED, TypeState


class DeltaStream(DiscoveryStream[DeltaDiscoveryRequest]):
    """One DeltaAggregatedResources stream."""

    variant = Variant.DELTA

    def _begin(self, state: TypeState, request: DeltaDiscoveryRequest) -> None:
        self._subscribe(state, request)
        has = dict(request.initial_resource_versions)
        # Names that it has are answered if they changed, with the others of their type; it does not wait for them.
        state.sent = {name: version for name, version in has.items() if state.subscription.covers(name)}
        state.urgent -= has.keys()
        # The answer to the first clusters shows that the requests of a reconnected client's other types are in.
        state.answer = state.answer or (state.type_url == TypeUrl.CLUSTER and bool(has))
        state.again = self._is_warming(state.type_url, reconnected=bool(has))

    def _continue(self, state: TypeState, request: DeltaDiscoveryRequest) -> list[Record]:
        records: list[Record] = []
        if request.response_nonce:
            if state.flight is not None and request.response_nonce == state.flight.nonce:
                records.append(self._answered(state, request))
            else:
                records.append(self._stale(state, request.response_nonce))
        if request.resource_names_subscribe or request.resource_names_unsubscribe:
            self._subscribe(state, request)
        return records

    def _subscribe(self, state: TypeState, request: DeltaDiscoveryRequest) -> None:
        asked, dropped = state.subscription.update(request.resource_names_subscribe, request.resource_names_unsubscribe)
        state.urgent |= asked - {WILDCARD}
        if WILDCARD in asked:
            state.answer = True
        if dropped:
            state.forget_uncovered()
            state.gone = frozenset(name for name in state.gone if state.subscription.covers(name))
        if state.subscription.wildcard:
            # It has to hear whether the name is part of "everything": it can't know, and has dropped the resource.
            state.urgent |= dropped - {WILDCARD}
        self._unsent.add(state.type_url)

    def _plan(self, state: TypeState, snapshot: Snapshot) -> Plan | None:
        resources = snapshot.resources(state.type_url)
        due = self._changed(state, snapshot)
        removed: set[str] = set()
        if state.type_url not in NEVER_REMOVED:
            # A name that does not exist is told as removed: the client stops waiting. It stays subscribed.
            removed = {name for name in state.urgent if name not in resources}
            gone = {name for name in state.sent if name not in resources and not state.is_refused(name, REMOVED)}
            if state.again:
                # Every name is answered, so that nothing stays warming for what this stream does not have.
                removed |= {n for n in state.subscription.names if n not in resources and n not in state.held}
            if state.type_url in LATE_REMOVAL:
                state.gone = frozenset(gone - removed)
            else:
                removed |= gone
        if not due and not removed and not state.answer:
            return None
        return Plan(version=resources.version, resources=tuple(due), removed=tuple(sorted(removed)))

    def _plan_removal(self, state: TypeState, snapshot: Snapshot) -> Plan:
        return Plan(version=snapshot.version(state.type_url), removed=tuple(sorted(state.gone)))
