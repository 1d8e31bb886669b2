"""DiscoveryStream: what the two variants have in common, as a state machine without I/O.

Two ways to drive it. `receive` and `on_snapshot` return every action at once; they fit tests and simple shells. A
server that writes to a network notes requests and snapshots as they come and asks for `next_response` when it can
write one: a response is computed from the newest snapshot at that moment, so a slow client skips what it missed and
nothing is queued for it.

Rules (the transport protocol's, and what other control planes learnt):

* a nonce per response, strictly increasing; one response per type is unanswered at a time;
* a refused response is kept out until something of it changes; the rest of the type goes on;
* the first request of a type on a stream starts it afresh, whatever nonce and version it carries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from xds_server.model.node import Node
from xds_server.model.resource import Resource, ResourceSet
from xds_server.model.snapshot import Snapshot
from xds_server.model.type_url import LATE_REMOVAL, LEGACY_WILDCARD, push_rank
from xds_server.protocol.actions import (
    Action,
    CloseStream,
    Record,
    RecordAck,
    RecordNack,
    RecordStale,
    RecordSynced,
    SendResponse,
    Status,
    Variant,
)
from xds_server.protocol.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from xds_server.protocol.ordering import SENT_AGAIN_AFTER, Turn, may_remove, turn_of
from xds_server.protocol.subscription import Subscription
from xds_server.protocol.type_state import REMOVED, Flight, TypeState

RequestT = TypeVar("RequestT", DiscoveryRequest, DeltaDiscoveryRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The content of a response."""

    version: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()
    whole: ResourceSet | None = None
    target: str = ""


class DiscoveryStream(ABC, Generic[RequestT]):
    """One aggregated stream of one proxy."""

    variant: ClassVar[Variant]

    def __init__(self) -> None:
        self.node: Node | None = None
        self._types: dict[str, TypeState] = {}
        self._snapshot: Snapshot | None = None
        self._unsent: set[str] = set()
        self._nonce = 0
        self._closed = False

    def receive(self, request: RequestT) -> list[Action]:
        """Take a request and return all that follows from it."""
        return [*self.note_request(request), *self._drain()]

    def on_snapshot(self, snapshot: Snapshot) -> list[Action]:
        """Take a snapshot and return all that follows from it."""
        self.note_snapshot(snapshot)
        return self._drain()

    def note_request(self, request: RequestT) -> list[Record]:
        """Take a request; responses are had from `next_response`."""
        if self._closed:
            return []
        if self.node is None and request.node.id:
            self.node = Node(id=request.node.id, cluster=request.node.cluster)
        problem = self._problem(request)
        if problem:
            self._closed = True
            return [CloseStream(status=Status.INVALID_ARGUMENT, message=problem)]
        state = self._types.get(request.type_url)
        if state is None:
            state = TypeState(request.type_url, Subscription(request.type_url in LEGACY_WILDCARD))
            self._types[request.type_url] = state
            self._begin(state, request)
            self._unsent.add(state.type_url)
            return []
        return self._continue(state, request)

    def note_snapshot(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot; an older one that was not written yet is forgotten."""
        before, self._snapshot = self._snapshot, snapshot
        for type_url, state in self._types.items():
            if before is None or before.version(type_url) != snapshot.version(type_url):
                state.release(snapshot.resources(type_url))
                self._unsent.add(type_url)

    def next_response(self) -> SendResponse | None:
        """Return the response to write next, which counts as sent, or None if there is nothing to say now."""
        if self._snapshot is None or self._closed:
            return None
        for type_url in sorted(self._unsent, key=push_rank):
            state = self._types[type_url]
            if state.flight is not None:
                continue
            turn = turn_of(type_url, self._types, self._unsent)
            if turn is Turn.CLOSED:
                continue
            if turn is Turn.ONLY_ASKED:
                plan = self._plan_asked(state, self._snapshot)
            else:
                plan = self._plan(state, self._snapshot)
                self._unsent.discard(type_url)
                state.answer = state.again = False
            state.urgent.clear()
            if plan is not None:
                return self._send(state, plan)
        return self._next_removal(self._snapshot)

    def newly_synced(self) -> list[RecordSynced]:
        """Return the types that have come to be in step with the snapshot since the last call."""
        records: list[RecordSynced] = []
        if self._snapshot is None:
            return records
        for type_url, state in self._types.items():
            if state.flight is not None or type_url in self._unsent or state.gone or state.has_refused():
                continue
            version = self._snapshot.version(type_url)
            if state.synced != version:
                state.synced = version
                records.append(RecordSynced(type_url=type_url, version=version))
        return records

    @abstractmethod
    def _begin(self, state: TypeState, request: RequestT) -> None:
        """Take the first request of a type."""

    @abstractmethod
    def _continue(self, state: TypeState, request: RequestT) -> list[Record]:
        """Take a later request of a type."""

    @abstractmethod
    def _plan(self, state: TypeState, snapshot: Snapshot) -> Plan | None:
        """Return what is due now, and set `state.gone`."""

    @abstractmethod
    def _plan_removal(self, state: TypeState, snapshot: Snapshot) -> Plan:
        """Return the response that takes `state.gone` from the client."""

    def _problem(self, request: RequestT) -> str:
        if self.node is None:
            return "node.id: is empty in the stream's first request; a proxy needs one (--service-node)"
        if not request.type_url:
            return "type_url: is empty; an aggregated stream needs it in every request"
        return ""

    def _plan_asked(self, state: TypeState, snapshot: Snapshot) -> Plan | None:
        """Return only what the client asked for."""
        resources = snapshot.resources(state.type_url)
        asked = tuple(resources[name] for name in sorted(state.urgent) if name in resources)
        return Plan(version=resources.version, resources=asked) if asked else None

    def _changed(self, state: TypeState, snapshot: Snapshot) -> list[Resource]:
        """Return the resources that the client lacks, asked for, or is to be sent again, in order of their names."""
        resources = snapshot.resources(state.type_url)
        names = sorted(resources if state.subscription.wildcard else state.subscription.names)
        due = []
        for name in names:
            resource = resources.get(name)
            if resource is None and state.again:
                # Gone, but so is not yet what belongs to it: that would stay warming, and could not be removed.
                resource = state.held.get(name)
            if resource is None:
                continue
            changed = state.again or state.sent.get(name) != resource.version
            if name in state.urgent or (changed and not state.is_refused(name, resource.version)):
                due.append(resource)
        return due

    def _send(self, state: TypeState, plan: Plan) -> SendResponse:
        self._nonce += 1
        state.nonce = str(self._nonce)
        state.synced = None
        warms = any(state.sent.get(resource.name) != resource.version for resource in plan.resources)
        contents = {resource.name: resource.version for resource in plan.resources}
        state.sent.update(contents)
        if state.type_url in LATE_REMOVAL:
            state.held.update({resource.name: resource for resource in plan.resources})
        for name in plan.removed:
            state.sent.pop(name, None)
            state.held.pop(name, None)
            contents[name] = REMOVED
        state.flight = Flight(
            nonce=state.nonce,
            version=plan.version,
            contents=contents,
            warms=warms,
            whole=plan.whole,
            target=plan.target,
        )
        if warms:
            state.warmed = True
            dependent = self._types.get(SENT_AGAIN_AFTER.get(state.type_url, ""))
            if dependent is not None:
                dependent.again = True
                self._unsent.add(dependent.type_url)
        return SendResponse(
            variant=self.variant,
            type_url=state.type_url,
            version=plan.version,
            nonce=state.nonce,
            resources=plan.resources,
            removed=plan.removed,
        )

    def _answered(self, state: TypeState, request: RequestT) -> Record:
        """Take the answer to the response in flight."""
        flight = state.flight
        assert flight is not None  # noqa: S101 - the callers compared its nonce
        state.flight = None
        if not request.HasField("error_detail"):
            self._accepted(state, flight)
            return RecordAck(type_url=state.type_url, version=flight.version, nonce=flight.nonce)
        self._refused(state, flight)
        return RecordNack(
            type_url=state.type_url, version=flight.version, nonce=flight.nonce, reason=request.error_detail.message
        )

    def _accepted(self, state: TypeState, flight: Flight) -> None:
        """Note that the client has the response's content; versions that were sent count as the client's already."""
        del state, flight

    def _refused(self, state: TypeState, flight: Flight) -> None:
        """Park the response's content."""
        state.refuse(flight)
        if self._snapshot is not None:
            # What changed while the response was in flight goes out now, with all that came with it.
            state.release(self._snapshot.resources(state.type_url))
        self._unsent.add(state.type_url)

    def _is_warming(self, type_url: str, *, reconnected: bool) -> bool:
        """Say whether a type is to be sent although the client has it: what it belongs to may be warming up for it.

        A reconnected Envoy whose clusters are warming asks for no clusters until they are warm, only for endpoints.
        """
        for earlier, dependent in SENT_AGAIN_AFTER.items():
            if dependent == type_url:
                state = self._types.get(earlier)
                return reconnected if state is None else state.warmed
        return False

    def _stale(self, state: TypeState, nonce: str) -> RecordStale:
        return RecordStale(type_url=state.type_url, nonce=nonce)

    def _next_removal(self, snapshot: Snapshot) -> SendResponse | None:
        for type_url in LATE_REMOVAL:
            state = self._types.get(type_url)
            if state is None or not state.gone or state.flight is not None or state.has_refused():
                continue
            if may_remove(type_url, self._types, self._unsent):
                plan = self._plan_removal(state, snapshot)
                state.gone = frozenset()
                return self._send(state, plan)
        return None

    def _drain(self) -> list[Action]:
        actions: list[Action] = []
        while (response := self.next_response()) is not None:
            actions.append(response)
        return [*actions, *self.newly_synced()]
