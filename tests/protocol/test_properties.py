"""Both variants against a model of Envoy: random changes, random delays, refusals and reconnects."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.model_envoy import EXTENSION, ModelEnvoy
from tests.support.xds import CDS, ECDS, EDS, LDS, RDS, cluster, endpoints, extension, listener, route
from xds_server.model.resource import Resource
from xds_server.model.snapshot import Snapshot
from xds_server.protocol.actions import Action, RecordNack, RecordSynced, SendResponse, Variant
from xds_server.protocol.delta import DeltaStream
from xds_server.protocol.ordering import SENT_AGAIN_AFTER
from xds_server.protocol.sotw import SotwStream
from xds_server.protocol.stream import DiscoveryStream

CLUSTERS, LISTENERS, ROUTES = "abc", "lm", "rs"
contents = st.integers(1, 2)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A consistent snapshot: what is referred to is there; listeners, routes and the extension may be bad."""
    clusters = sorted(draw(st.sets(st.sampled_from(CLUSTERS), min_size=1)))
    routes = sorted(draw(st.sets(st.sampled_from(ROUTES), min_size=1)))
    listeners = sorted(draw(st.sets(st.sampled_from(LISTENERS))))
    flaw = st.sampled_from(["", "", "", " bad"])
    return Snapshot.of(
        [
            *(cluster(name, draw(contents)) for name in clusters),
            *(endpoints(name, draw(contents)) for name in clusters),
            *(route(name, f"{draw(st.sampled_from(clusters))} {draw(contents)}{draw(flaw)}") for name in routes),
            *(listener(name, f"{draw(st.sampled_from(routes))} {draw(contents)}{draw(flaw)}") for name in listeners),
            extension(EXTENSION, f"{draw(st.sampled_from(clusters))} {draw(contents)}{draw(flaw)}"),
        ]
    )


def _contents(resources: Iterable[Resource]) -> str:
    return ", ".join(f"{r.type_url.rsplit('.', 1)[-1]} {r.body.decode()}" for r in resources)


def _short(action: Action) -> str:
    if isinstance(action, SendResponse):
        return f"{action.nonce}: {action.type_url.rsplit('.', 1)[-1]} {_contents(action.resources)} -{action.removed}"
    return str(action)


class StreamMachine(RuleBasedStateMachine):
    variant: Variant
    make: type[DiscoveryStream[Any]]

    @initialize(snapshot=snapshots())
    def start(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        note(_contents(r for s in snapshot.types.values() for r in s.values()))
        self.client = ModelEnvoy(self.variant)
        self.ordered = True
        self._connect()

    @rule(snapshot=snapshots())
    def change(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        note(_contents(r for s in snapshot.types.values() for r in s.values()))
        self._take(self.stream.on_snapshot(snapshot), asked=None)

    @rule()
    def nothing_new(self) -> None:
        assert not [a for a in self.stream.on_snapshot(self.snapshot) if isinstance(a, SendResponse)]

    @precondition(lambda self: self.client.requests)
    @rule()
    def request_arrives(self) -> None:
        request = self.client.requests.popleft()
        note(" ".join(str(request).split()))
        flight = self.flights.get(request.type_url)
        if flight is not None and request.response_nonce == flight.nonce:
            del self.flights[request.type_url]
            if request.HasField("error_detail"):
                self.refused[request.type_url] = flight
        self._take(self.stream.receive(request), asked=request.type_url)

    @precondition(lambda self: self.responses)
    @rule(apply_rest=st.booleans())
    def response_arrives(self, apply_rest: bool) -> None:
        self.client.apply_rest = apply_rest
        note(_short(self.responses[0]))
        self.client.receive(self.responses.popleft())
        if self.ordered:
            assert not self.client.dangling()

    @precondition(lambda self: self.variant is Variant.SOTW or not self.client.untold)
    @rule()
    def reconnect(self) -> None:
        # What a state-of-the-world client has is not known on its next stream; and Envoy asks for no clusters as long
        # as some are warming up: there is no order across these.
        self.ordered = self.ordered and self.variant is Variant.DELTA and not self.client.warming_clusters
        self._connect()

    @rule()
    def quiet(self) -> None:
        """Everything arrives: the client has all that it subscribes to, but for what it refused."""
        for _ in range(200):
            if self.client.requests:
                self.request_arrives()
            elif self.responses:
                self.response_arrives(apply_rest=True)
            elif self.variant is Variant.SOTW and self.client.warming_clusters - set(self.snapshot.resources(EDS)):
                # This variant has no word for "does not exist".
                self.client.time_out(self.client.warming_clusters - set(self.snapshot.resources(EDS)))
            else:
                break
        else:
            raise AssertionError("no end of messages")
        # What still refers to a cluster that was lost by a reconnect was refused since.
        self.ordered = not self.client.dangling()
        assert not self.flights
        refused = {type_url for type_url in (LDS, RDS, ECDS) if self._has_bad(type_url)}
        synced = {t for t in self.synced if self.synced[t] == self.snapshot.version(t)}
        assert refused.isdisjoint(synced)
        for type_url in self.client.subscribed:
            self._compare(type_url, refused)
        if not refused:
            assert synced == set(self.client.subscribed)

    @invariant()
    def one_response_per_type_is_unanswered(self) -> None:
        assert len(self.responses) <= len(self.flights)

    def _connect(self) -> None:
        self.stream = self.make()
        self.responses: deque[SendResponse] = deque()
        self.flights: dict[str, SendResponse] = {}
        self.refused: dict[str, SendResponse] = {}
        self.sent: dict[str, dict[str, str]] = {}
        self.asked: set[str] = set()
        self.again: set[str] = set()
        self.synced: dict[str, str] = {}
        self.nonce = 0
        self.client.connect()
        self._take(self.stream.on_snapshot(self.snapshot), asked=None)

    def _take(self, actions: list[Any], *, asked: str | None) -> None:
        if asked is not None:
            self.asked.add(asked)
        note(f"   {[_short(action) for action in actions]}")
        for action in actions:
            if isinstance(action, RecordSynced):
                self.synced[action.type_url] = action.version
            elif isinstance(action, RecordNack):
                assert action.reason
            elif isinstance(action, SendResponse):
                self._check(action)
                self.synced.pop(action.type_url, None)
                self.flights[action.type_url] = action
                self.responses.append(action)

    def _check(self, response: SendResponse) -> None:
        type_url = response.type_url
        assert int(response.nonce) > self.nonce
        self.nonce = int(response.nonce)
        assert type_url not in self.flights, "one un-ACKed response per type"
        sent = self.sent.setdefault(type_url, {})
        changed = {r.name for r in response.resources if sent.get(r.name) != r.version}
        whole = self.variant is Variant.SOTW and type_url in (CDS, LDS)
        gone = set(sent) - {r.name for r in response.resources} if whole else set(response.removed)
        assert changed or gone or type_url in self.asked | self.again, "no response without a change"
        refused = self.refused.get(type_url)
        if refused is not None and type_url not in self.asked:
            mended = any(self._has_changed(type_url, resource) for resource in refused.resources)
            again = {*response.resources} & {*refused.resources}
            assert mended or not again, "a refused response is not sent again"
            assert (response.resources, response.removed) != (refused.resources, refused.removed)
        self.asked.discard(type_url)
        self.again.discard(type_url)
        if changed and type_url in SENT_AGAIN_AFTER:
            self.again.add(SENT_AGAIN_AFTER[type_url])
        if changed and type_url == LDS:
            self.asked.add(RDS)
        sent.update({r.name: r.version for r in response.resources})
        for name in gone:
            sent.pop(name, None)

    def _has_changed(self, type_url: str, resource: Resource) -> bool:
        unwanted = type_url not in (CDS, LDS) and resource.name not in self.client.subscribed.get(type_url, ())
        return unwanted or self.snapshot.resources(type_url).get(resource.name) != resource

    def _has_bad(self, type_url: str) -> bool:
        subscribed = self.client.subscribed.get(type_url)
        if subscribed is None:
            return False
        resources = self.snapshot.resources(type_url)
        return any(b"bad" in r.body for r in resources.values() if type_url == LDS or r.name in subscribed)

    def _compare(self, type_url: str, refused: set[str]) -> None:
        has, now = self.client.has[type_url], self.snapshot.resources(type_url)
        if type_url == CDS:
            assert set(has) == set(now) if not refused else set(has) >= set(now)
            assert all(has[name] == now[name] for name in now)
            assert not self.client.warming_clusters
        elif type_url == LDS:
            assert has == dict(now) or refused & {LDS, RDS}
        elif type_url == EDS or not refused & {type_url, LDS}:
            names = self.client.subscribed[type_url]
            assert {n: r for n, r in has.items() if n in now and n in names} == {n: now[n] for n in names if n in now}


class SotwMachine(StreamMachine):
    variant = Variant.SOTW
    make = SotwStream


class DeltaMachine(StreamMachine):
    variant = Variant.DELTA
    make = DeltaStream


LONG = settings(max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestSotw = SotwMachine.TestCase
TestSotw.settings = LONG
TestDelta = DeltaMachine.TestCase
TestDelta.settings = LONG
