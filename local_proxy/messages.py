"""What hairpin tells of a session, as text."""

from __future__ import annotations

from hairpin.model.session import Mode, Session
from local_proxy.laptop import EgressSeen
from local_proxy.ports import Listener, Sighting
from local_proxy.session_client import RequestSeen

BY_LAPTOP = "via_upstream"
"""Envoy's response code details (RESPONSE_CODE_DETAILS) of an answer that came from the process here."""


def claim_text(session: Session, requests: str) -> str:
    """What a session is for.

    Args:
        session: the session.
        requests: which ones it takes, in the language of `--match`.
    """
    if session.spec.mode is Mode.EGRESS:
        return f"session {session.name}: takes no requests, calls into the mesh"
    return f"session {session.name}: requests of {session.status.resolved_target} where {requests}"


def sighting_text(sighting: Sighting, *, port: int | None, took: bool) -> str:
    """What the processes listen on, and what that means.

    Args:
        sighting: what was seen.
        port: the port that the user named, if any.
        took: whether the requests came here until now.
    """
    listener, others = sighting.listener, sighting.others
    if listener is not None:
        what = f"{_process(listener)}{_address(listener)} takes the requests"
        return f"{what}; {_also(others)}" if others else what
    if took:
        what = "nothing listens any more: the cluster answers until it comes back"
    elif port is not None:
        what = f"nothing listens on port {port} yet: the cluster answers"
    else:
        what = "nothing listens yet: the cluster answers"
    return f"{what} ({_instead(others)})" if others and port is not None else what


def request_text(request: RequestSeen) -> str:
    """A request that came in."""
    line = f"-> {request.method} {request.authority}{request.path} {request.status or '-'} {request.duration_ms} ms"
    return line if request.served == BY_LAPTOP else f"{line} (not answered here: {request.served or 'unknown'})"


def egress_text(seen: EgressSeen) -> str:
    """A request, or a connection, that the command made."""
    line = f"<- {seen.method} {seen.authority} {seen.status or '-'} {seen.duration_ms} ms"
    return f"{line} (refused: {seen.refused})" if seen.refused else line


def _process(listener: Listener) -> str:
    return f"{listener.process} at " if listener.process else ""


def _address(listener: Listener) -> str:
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return f"{host}:{listener.port}"


def _also(others: tuple[Listener, ...]) -> str:
    ports = " and ".join(str(other.port) for other in others)
    return f"it also listens on {ports}: --port {others[0].port} would choose that"


def _instead(others: tuple[Listener, ...]) -> str:
    ports = " and ".join(str(other.port) for other in others)
    return f"the command listens on {ports}: did you mean --port {others[0].port}?"
