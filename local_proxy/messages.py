"""What hairpin tells of a session, as text."""

from __future__ import annotations

import signal

from hairpin.model.egress import Action, SessionRules
from hairpin.model.environment import Environment
from hairpin.model.match_format import format_match
from hairpin.model.session import Mode, Session
from local_proxy.laptop import ConnectionSeen, EgressSeen
from local_proxy.ports import Listener, Sighting
from local_proxy.session_store import RequestSeen
from local_proxy.signals import SIGNALLED

_MOST_RULES = 8
"""Of an egress policy, in one line."""
BY_LAPTOP = "via_upstream"
"""Envoy's response code details (RESPONSE_CODE_DETAILS) of an answer that came from the process here."""
_RESET = "upstream_reset_before_response_started"
_FAILURES = (
    (f"{_RESET}{{remote_connection_failure", "no tunnel"),
    (f"{_RESET}{{connection_termination", "the process refused or closed the connection"),
    (f"{_RESET}{{protocol_error", "what the process answered is no HTTP"),
    ("upstream_reset_after_response_started", "the connection broke off amid the answer"),
    ("upstream_response_timeout", "no answer in time"),
    ("response_timeout", "no answer in time"),
    ("request_overall_timeout", "no answer in time"),
    ("stream_idle_timeout", "no answer in time"),
    ("downstream_remote_disconnect", "the caller went away"),
    ("http2.remote_reset", "the caller went away"),
)
"""How Envoy's details of a failure begin, as its agents have been seen to give them, and what each means."""


def claim_text(session: Session, requests: str) -> str:
    """What a session is for.

    Args:
        session: the session.
        requests: which ones it takes, in the language of `--match`.
    """
    if session.spec.mode is Mode.EGRESS:
        return f"session {session.name}: takes no requests, calls into the mesh"
    what = "copies of requests" if session.spec.mode is Mode.MIRROR else "requests"
    return f"session {session.name}: {what} of {session.status.resolved_target} where {requests}"


def no_tunnel_text(session: Session, seconds: float, problem: str) -> str:
    """That no tunnel came up, and what may help.

    Args:
        session: the session.
        seconds: how long it was waited for.
        problem: what the laptop's Envoy said last of a tunnel, if anything.
    """
    status = session.status
    agents = [f"{a.name} at {a.host}:{a.tunnel_port}" if a.host else f"pod {a.name}" for a in status.agents]
    why = f" ({problem})" if problem else ""
    text = f"no tunnel to the agent came up within {seconds:.0f} s, to {' or '.join(agents) or 'any replica'}{why}: "
    if waiting := [condition.message for condition in status.conditions if condition.reason == "Waiting"]:
        return text + "; ".join(waiting)
    if any(not agent.host for agent in status.agents):
        return f"{text}is the agent up? `kubectl get pods -n {session.namespace}` tells"
    return f"{text}is the agent up? `hairpin mesh status` tells"


def calls_text(egress_port: int, *, command: bool, kept: bool, intercepted: bool = False) -> str:
    """How calls get into the mesh.

    Args:
        egress_port: the HTTP proxy's port.
        command: whether there is a command, which is started with what it needs.
        kept: whether the port is the same next time.
        intercepted: whether the command needs nothing to get there.
    """
    if intercepted:
        return f"calls into the mesh: the command's connections and names; for others an HTTP proxy at 127.0.0.1:{egress_port}"
    text = f"calls into the mesh: HTTP proxy at 127.0.0.1:{egress_port}"
    if command:
        return text
    keep = "" if kept else " (--egress-port keeps the port)"
    return f"{text}; for its own calls into the mesh give the process http_proxy=http://127.0.0.1:{egress_port}{keep}"


def injection_text(environment: Environment) -> str:
    """What is added to the command's requests."""
    return f"the command's HTTP requests that lack it get {format_match(environment.match)}"


def policy_text(rules: SessionRules) -> str:
    """Where the calls may go, by the namespace's egress policy; nothing where it says nothing of this session."""
    if not rules.rules and rules.default is Action.ALLOW:
        return ""
    told = [f"{rule}, {rule.reason}" if rule.reason else str(rule) for rule in rules.rules[:_MOST_RULES]]
    if more := len(rules.rules) - len(told):
        told.append(f"{more} more rules")
    return f"calls go where the namespace's EgressPolicy lets them: {'; '.join([*told, f'else {rules.default}'])}"


def end_text(name: str, code: int, *, killed: bool, idle: bool) -> str:
    """How the command ended, if there is something to tell of it; else nothing.

    Args:
        name: the command's.
        code: its exit code, as a shell gives it.
        killed: whether a signal ended it.
        idle: whether it should have taken requests, and never listened.
    """
    how = "ended"
    if killed:
        how = f"was ended by {_signal(code - SIGNALLED)}"
    elif code:
        how = f"ended with {code}"
    if idle:
        return f"{name} {how} and never listened: nothing was taken"
    return f"{name} {how}" if code else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def sighting_text(sighting: Sighting, *, port: int | None, took: bool, copies: bool = False) -> str:
    """What the processes listen on, and what that means.

    Args:
        sighting: what was seen.
        port: the port that the user named, if any.
        took: whether the requests came here until now.
        copies: whether they come in copy.
    """
    listener, others = sighting.listener, sighting.others
    if listener is not None:
        what = f"{_process(listener)}{_address(listener)} {'gets copies of' if copies else 'takes'} the requests"
        return f"{what}; {_also(others)}" if others else what
    if took and copies:
        what = "nothing listens any more: there are no copies until it comes back"
    elif took:
        what = "nothing listens any more: the cluster answers until it comes back"
    elif port is not None:
        what = f"nothing listens on port {port} yet: the cluster answers"
    else:
        what = "nothing listens yet: the cluster answers"
    return f"{what} ({_instead(others)})" if others and port is not None else what


def request_text(request: RequestSeen) -> str:
    """A request that came in."""
    line = f"-> {request.method} {request.authority}{request.path} {request.status or '-'} {request.duration_ms} ms"
    if request.copy:
        line += " (copy)"
    return (
        line
        if request.served == BY_LAPTOP
        else f"{line} ({'not taken' if request.copy else 'not answered'} here{_why(request.served)})"
    )


def _why(served: str) -> str:
    words = next((words for beginning, words in _FAILURES if served.startswith(beginning)), "")
    if words:
        return f": {words}"
    return f" [{served}]" if served else ""


def egress_text(seen: EgressSeen) -> str:
    """A request, or a connection, that the command made."""
    line = f"<- {seen.method} {seen.authority} {seen.status or '-'} {seen.duration_ms} ms"
    return f"{line} (refused: {seen.refused})" if seen.refused else line


def connection_text(seen: ConnectionSeen) -> str:
    """A connection that the command made, at its end."""
    host, _, port = seen.authority.rpartition(":")
    where = f"{seen.name}:{port} ({host})" if seen.name and seen.name != host else seen.authority
    if seen.refused:
        return f"<- {where} (refused: {seen.refused})"
    return f"<- {where} {_size(seen.sent)} out, {_size(seen.received)} in, {seen.duration_ms} ms"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            amount = count / size
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"  # noqa: PLR2004
    return f"{count} B"


def _process(listener: Listener) -> str:
    return f"{listener.process} at " if listener.process else ""


def _address(listener: Listener) -> str:
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    moved = f" (moved from {listener.believed})" if listener.believed else ""
    return f"{host}:{listener.port}{moved}"


def _also(others: tuple[Listener, ...]) -> str:
    ports = " and ".join(str(other.known) for other in others)
    return f"it also listens on {ports}: --port {others[0].known} would choose that"


def _instead(others: tuple[Listener, ...]) -> str:
    ports = " and ".join(str(other.known) for other in others)
    return f"the command listens on {ports}: did you mean --port {others[0].known}?"
