"""Short forms for xDS tests: requests, resources, and a playbook that reads as a stream's transcript.

    assert (
        Playbook(SotwStream())
        >> request(CDS)
        >> snapshot(cluster("a", 1))
        << response(CDS, "a", nonce=1)
        >> ack(CDS, nonce=1)
        << acked(CDS, nonce=1)
    )

`>>` goes into the stream, `<<` is what it must say, in this order. What it said and the playbook did not expect fails
the next `>>` or the assertion, with the transcript. Of the records only those of an answer (ACK, NACK, stale) and the
end of the stream are part of it; `synced` is looked at by `Playbook.synced`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xds_server.model.resource import Resource
from xds_server.model.snapshot import Snapshot
from xds_server.model.type_url import TypeUrl
from xds_server.protocol.actions import (
    Action,
    CloseStream,
    RecordAck,
    RecordNack,
    RecordStale,
    RecordSynced,
    SendResponse,
    Status,
)
from xds_server.protocol.frames import DeltaDiscoveryRequest, DiscoveryRequest
from xds_server.protocol.stream import DiscoveryStream

CDS = TypeUrl.CLUSTER
EDS = TypeUrl.CLUSTER_LOAD_ASSIGNMENT
LDS = TypeUrl.LISTENER
RDS = TypeUrl.ROUTE_CONFIGURATION
SDS = TypeUrl.SECRET
ECDS = TypeUrl.EXTENSION_CONFIG


def resource(type_url: str, name: str, content: object = 1) -> Resource:
    return Resource.of(type_url, name, f"{name}={content}".encode())


def cluster(name: str, content: object = 1) -> Resource:
    return resource(CDS, name, content)


def endpoints(name: str, content: object = 1) -> Resource:
    return resource(EDS, name, content)


def listener(name: str, content: object = 1) -> Resource:
    return resource(LDS, name, content)


def route(name: str, content: object = 1) -> Resource:
    return resource(RDS, name, content)


def extension(name: str, content: object = 1) -> Resource:
    return resource(ECDS, name, content)


def snapshot(*resources: Resource) -> Snapshot:
    return Snapshot.of(resources)


# --- what goes in -----------------------------------------------------------------------------------------------------


def request(
    type_url: str,
    *names: str,
    nonce: int | str = "",
    version: str = "",
    error: str = "",
    node: str = "proxy",
) -> DiscoveryRequest:
    made = DiscoveryRequest(
        type_url=type_url, resource_names=names, response_nonce=str(nonce), version_info=version, node={"id": node}
    )
    if error:
        made.error_detail.message = error
    return made


def ack(type_url: str, *names: str, nonce: int) -> DiscoveryRequest:
    return request(type_url, *names, nonce=nonce)


def nack(type_url: str, *names: str, nonce: int, error: str = "bad") -> DiscoveryRequest:
    return request(type_url, *names, nonce=nonce, error=error)


def delta(
    type_url: str,
    *subscribe: str,
    unsubscribe: Iterable[str] = (),
    has: Iterable[Resource] | dict[str, str] = (),
    nonce: int | str = "",
    error: str = "",
    node: str = "proxy",
) -> DeltaDiscoveryRequest:
    made = DeltaDiscoveryRequest(
        type_url=type_url,
        resource_names_subscribe=subscribe,
        resource_names_unsubscribe=unsubscribe,
        initial_resource_versions=has if isinstance(has, dict) else {r.name: r.version for r in has},
        response_nonce=str(nonce),
        node={"id": node},
    )
    if error:
        made.error_detail.message = error
    return made


# --- what comes out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """What an action must look like, field by field; fields that are not named may be anything."""

    kind: type[Any]
    fields: tuple[tuple[str, object], ...]

    def matches(self, action: Action) -> bool:
        return isinstance(action, self.kind) and all(getattr(action, name) == value for name, value in self.fields)

    def __str__(self) -> str:
        return f"{self.kind.__name__}({', '.join(f'{name}={value!r}' for name, value in self.fields)})"


def response(
    type_url: str, *names: str, nonce: int, removed: Sequence[str] = (), of: Snapshot | None = None
) -> Expected:
    version = (("version", of.version(type_url)),) if of is not None else ()
    return Expected(
        SendResponse,
        (("type_url", type_url), ("names", names), ("removed", tuple(removed)), ("nonce", str(nonce)), *version),
    )


def acked(type_url: str, *, nonce: int) -> Expected:
    return Expected(RecordAck, (("type_url", type_url), ("nonce", str(nonce))))


def nacked(type_url: str, *, nonce: int, reason: str = "bad") -> Expected:
    return Expected(RecordNack, (("type_url", type_url), ("nonce", str(nonce)), ("reason", reason)))


def stale(type_url: str, *, nonce: int | str) -> Expected:
    return Expected(RecordStale, (("type_url", type_url), ("nonce", str(nonce))))


def closed(status: Status) -> Expected:
    return Expected(CloseStream, (("status", status),))


class Playbook:
    """Drives a stream and holds it to its transcript."""

    def __init__(self, stream: DiscoveryStream[Any]) -> None:
        self.stream = stream
        self.synced: dict[str, str] = {}
        self._said: list[Action] = []
        self._transcript: list[str] = []

    def __rshift__(self, told: DiscoveryRequest | DeltaDiscoveryRequest | Snapshot) -> Playbook:
        self._nothing_left(before=told)
        self._transcript.append(f">> {_short(told)}")
        actions = self.stream.on_snapshot(told) if isinstance(told, Snapshot) else self.stream.receive(told)
        for action in actions:
            if isinstance(action, RecordSynced):
                self.synced[action.type_url] = action.version
                continue
            if isinstance(action, SendResponse):
                self.synced.pop(action.type_url, None)
            self._said.append(action)
        return self

    def __lshift__(self, expected: Expected) -> Playbook:
        if not self._said:
            raise AssertionError(self._report(f"expected {expected}, but nothing (more) was said"))
        said = self._said.pop(0)
        if not expected.matches(said):
            raise AssertionError(self._report(f"expected {expected}\n     got {said}"))
        self._transcript.append(f"<< {expected}")
        return self

    def __bool__(self) -> bool:
        self._nothing_left(before=None)
        return True

    def _nothing_left(self, *, before: object) -> None:
        if self._said:
            where = "at the end" if before is None else f"before >> {_short(before)}"
            raise AssertionError(self._report(f"not expected {where}: {self._said}"))

    def _report(self, problem: str) -> str:
        return "\n".join([problem, "after", *self._transcript])


def _short(told: object) -> str:
    return repr(told) if isinstance(told, Snapshot) else f"{type(told).__name__} {str(told).strip()!r}"
