"""Plumbing by hand: put on workloads ahead of time, and taken off. The controller would write the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hairpin.errors import ConflictError, HairpinError, NotFoundError
from hairpin.kubernetes.kinds import ENVOY_FILTERS, SESSIONS
from hairpin.kubernetes.withdrawal import PUSH_SECONDS
from xds_server.commands.acknowledgement import Refusal, acknowledged
from xds_server.commands.cluster import Look, look
from xds_server.delivery.istio.cluster_index import reference
from xds_server.delivery.istio.objects import Renderer, existing, plumbing_key, policies, sessions_key, wanted
from xds_server.server.kubernetes.executor import MANAGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from hairpin.kubernetes.api import Api
    from hairpin.model.target import Target
    from xds_server.delivery.istio.points import Point
    from xds_server.model.cluster import Key, PodFacts, SessionFacts

_DRAIN = "its open connections drain within 45 s, or as long as your mesh's drainDuration is"
_CONTROLLER_SECONDS = 5.0
"""How long a controller may take to withdraw what ended sessions were steered by."""
_POLL_SECONDS = 0.1


async def enable(api: Api, target: Target, *, say: Callable[[str], None], seconds: float) -> None:
    """Put the plumbing on every workload behind a target, and look at a sidecar of each.

    Raises:
        NotFoundError: there is no such target.
        HairpinError: it can't be steered, or a sidecar refused the plumbing: then it is taken back.
    """
    seen = await _look(api, target.namespace)
    points = seen.points(target)
    plumbed = {point.place for point in existing(seen.world, seen.index).plumbed}
    new = [point for point in points if point.place not in plumbed]
    for point in points:
        if point not in new:
            say(f"{point} has its plumbing already")
    written = await _write(api, seen, new)
    for point in new:
        say(f"{point} got its plumbing: its inbound listener changes, and {_DRAIN}")
    for point in points:
        try:
            await _check(api, seen, point, say=say, seconds=seconds)
        except _RefusedError as error:
            for key in reversed(written):
                await api.delete(ENVOY_FILTERS, key.name, namespace=key.namespace)
            taken = "; the plumbing is taken back" if written else ""
            raise HairpinError(f"{error}{taken}") from None


async def disable(api: Api, target: Target, *, force: bool, say: Callable[[str], None], seconds: float) -> None:
    """Take the plumbing off every workload behind a target.

    Raises:
        NotFoundError: there is none.
        ConflictError: sessions take requests there, and they were not to be ended.
    """
    seen = await _look(api, target.namespace)
    points = _plumbed(seen, target)
    sessions = seen.sessions_on(points)
    if sessions and not force:
        raise ConflictError(
            f"{target} is in use by {_named(sessions)}; ask them to stop, or end their sessions by --force"
        )
    for session in sessions:
        await api.delete(SESSIONS, session.key.name, namespace=session.key.namespace, uid=session.uid)
        say(f"session {session.key} is ended")
    if sessions:
        await _withdrawn(api, seen, points, seconds)
    for point in points:
        # The plumbing first: while it is there, sidecars look for the other.
        for key in (plumbing_key(point), sessions_key(point)):
            await api.delete(ENVOY_FILTERS, key.name, namespace=key.namespace)
        say(f"{point} is as Istio makes it: its inbound listener changes, and {_DRAIN}")
    for point in points:
        pod = _pod(seen, point)
        if pod is not None:
            try:
                await acknowledged(api, pod, point.port, present=False, seconds=seconds)
            except HairpinError as error:
                say(f"{point}: {error}")


async def _look(api: Api, namespace: str) -> Look:
    seen = await look(api, namespace)
    delivery = seen.world.settings.delivery
    if delivery.by_route:
        raise HairpinError(f"there is no plumbing in this mesh: its delivery is {delivery}, which changes no listener")
    return seen


class _RefusedError(Exception):
    """A sidecar refused the plumbing."""


async def _write(api: Api, seen: Look, points: list[Point]) -> list[Key]:
    written = []
    for key, document in wanted(points, {}, seen.world.settings, Renderer()).items():
        await api.apply(ENVOY_FILTERS, document, manager=MANAGER)
        written.append(key)
    return written


async def _withdrawn(api: Api, seen: Look, points: list[Point], seconds: float) -> None:
    """Until the controller has taken the matches of ended sessions back; without one, do it."""
    keys = {sessions_key(point) for point in points}
    try:
        async with asyncio.timeout(min(seconds, _CONTROLLER_SECONDS)):
            for key in keys:
                await _empty(api, key)
    except TimeoutError:
        for key, document in wanted(points, {}, seen.world.settings, Renderer()).items():
            if key in keys:
                await api.apply(ENVOY_FILTERS, document, manager=MANAGER)
    # Open connections drain by the old routes, whose clusters go with the plumbing: no match may lead there by then.
    await asyncio.sleep(PUSH_SECONDS)


async def _empty(api: Api, key: Key) -> None:
    while True:
        if not policies(await api.find(ENVOY_FILTERS, key.name, namespace=key.namespace)):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _check(api: Api, seen: Look, point: Point, *, say: Callable[[str], None], seconds: float) -> None:
    """Look at one pod's sidecar; it can only be told where none can be asked."""
    pod = _pod(seen, point)
    if pod is None:
        say(f"{point} has no pod that is ready: whether its sidecar takes the plumbing is not known")
        return
    try:
        answer = await acknowledged(api, pod, point.port, present=True, seconds=seconds)
    except HairpinError as error:
        say(f"{point}: whether the sidecars take the plumbing is not known: {error}")
        return
    if isinstance(answer, Refusal):
        raise _RefusedError(f"{point}: the sidecar of pod {pod.key.name} refuses the plumbing: {answer.reason}")
    say(f"{point} is ready: the sidecar of pod {pod.key.name} has it")


def _pod(seen: Look, point: Point) -> PodFacts | None:
    return next((p for p in seen.index.pods(point.workload) if p.ready and p.sidecar and not p.terminating), None)


def _plumbed(seen: Look, target: Target) -> list[Point]:
    """The target's points that have plumbing."""
    wanted_points = {point.place for point in seen.points(target)} if target.port is not None else None
    plumbed = existing(seen.world, seen.index).plumbed
    if wanted_points is not None:
        found = [point for point in plumbed if point.place in wanted_points]
    elif target.kind == "service":
        services = [s for s in seen.world.services if s.key.name == target.name]
        behind = {(w.kind, w.key) for service in services for w in seen.index.behind(service)}
        found = [point for point in plumbed if (point.workload.kind, point.workload.key) in behind]
    else:
        found = [point for point in plumbed if reference(point.workload) == f"{target.kind}/{target.name}"]
    if not found:
        others = ", ".join(sorted(f"{reference(point.workload)}:{point.port}" for point in plumbed)) or "nothing"
        raise NotFoundError(f"{target} has no plumbing in namespace {target.namespace!r}; there, {others} has")
    return found


def _named(sessions: list[SessionFacts]) -> str:
    return ", ".join(f"{s.key.name} of {s.spec.owner if s.spec else 'somebody'}" for s in sessions)
