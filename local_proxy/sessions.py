"""`hairpin sessions` and `hairpin stop`: what the control plane knows, and ending it from elsewhere."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from hairpin.errors import InvalidFieldError, NotFoundError
from hairpin.model.environment import Environment, RoutingKey
from hairpin.model.match import And, Match, Or
from hairpin.model.match_format import format_match
from hairpin.model.session import Mode, Session
from hairpin.model.session_json import session_to_json
from local_proxy.control_planes import Connection, control_plane

_COLUMNS = ("NAME", "OWNER", "TARGET", "REQUESTS", "MODE", "PHASE", "PORT", "TUNNEL", "AGE")


def print_sessions(connection: Connection, output: str) -> int:
    """Print everyone's sessions, as a table, JSON or YAML."""
    sessions, routing_key, title = asyncio.run(_list(connection))
    if title:
        sys.stderr.write(f"{title}\n")
    if output == "table":
        text = table(sessions, routing_key, datetime.now(UTC), namespaces=connection.everywhere)
    else:
        document = {"items": [_without_certificates(session_to_json(session)) for session in sessions]}
        text = (
            json.dumps(document, indent=2) + "\n"
            if output == "json"
            else yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        )
    sys.stdout.write(text)
    return 0


def stop_sessions(connection: Connection, names: Sequence[str], *, every: bool) -> int:
    """End sessions of the user's own.

    Raises:
        NotFoundError: there is none of that name.
        HairpinError: it is someone else's.
    """
    if "" in names:
        raise InvalidFieldError("NAME", None, "is empty", "name a session (see `hairpin sessions`)")
    if every == bool(names):
        problem = "are given beside --all" if every else "is missing"
        raise InvalidFieldError(
            "NAME", " ".join(names) or None, problem, "name a session (see `hairpin sessions`), or write --all"
        )
    for name in asyncio.run(_stop(connection, names, every=every)):
        sys.stdout.write(f"session {name} ended; its requests are the cluster's again\n")
    return 0


def table(
    sessions: Sequence[Session], routing_key: RoutingKey | None, now: datetime, *, namespaces: bool = False
) -> str:
    """The sessions as lines of columns, or one that says that there are none.

    Args:
        sessions: the sessions.
        routing_key: what marks an environment's requests, if that is known.
        now: the time.
        namespaces: whether to show them.
    """
    if not sessions:
        return "no sessions: all requests are answered by the cluster\n"
    rows = [_COLUMNS, *(_row(session, routing_key, now) for session in sessions)]
    if namespaces:
        places = ["NAMESPACE", *(session.namespace for session in sessions)]
        rows = [(place, *row) for place, row in zip(places, rows, strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def requests_text(session: Session, routing_key: RoutingKey | None) -> str:
    """Which requests a session takes, in the language of `--match`; by the environment's name if its key is not known."""
    spec = session.spec
    if spec.mode is Mode.EGRESS:
        return "-"
    if spec.environment and routing_key is None:
        rest = f" and {_in_parentheses(spec.match)}" if spec.match is not None else ""
        return f"environment {spec.environment}{rest}"
    environment = Environment(spec.environment, routing_key).match if spec.environment and routing_key else None
    parts = tuple(part for part in (environment, spec.match) if part is not None)
    if not parts:
        return "-"
    return format_match(parts[0] if len(parts) == 1 else And(parts))


def _in_parentheses(match: Match) -> str:
    return f"({format_match(match)})" if isinstance(match, Or) else format_match(match)


def _row(session: Session, routing_key: RoutingKey | None, now: datetime) -> tuple[str, ...]:
    status = session.status
    up, wanted = len(status.tunnels), len(status.agents)
    tunnel = "down" if not up else "up" if up >= wanted else f"{up} of {wanted}"
    return (
        session.name,
        session.owner,
        status.resolved_target or (session.spec.target.name if session.spec.target else "-"),
        requests_text(session, routing_key),
        session.spec.mode.value,
        status.phase.value,
        str(session.spec.local_port or "-"),
        tunnel,
        age(now - session.created),
    )


def age(time: timedelta) -> str:
    """A time in its largest unit, as kubectl shows it."""
    seconds = max(0, int(time.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _without_certificates(document: dict[str, Any]) -> dict[str, Any]:
    # The list has none of other people's; our own are of no use to anyone here either.
    for part, field in (("spec", "certificateRequest"), ("status", "certificate"), ("status", "certificateAuthority")):
        document.get(part, {}).pop(field, None)
    return document


async def _list(connection: Connection) -> tuple[list[Session], RoutingKey | None, str]:
    async with control_plane(connection) as plane, plane.open() as store:
        sessions = await store.list()
        if connection.namespace:
            sessions = [session for session in sessions if session.namespace == connection.namespace]
        return sessions, plane.routing_key, plane.title


async def _stop(connection: Connection, names: Sequence[str], *, every: bool) -> list[str]:
    async with control_plane(connection) as plane, plane.open() as store:
        known = await store.list()
        user = await plane.user()
        if every:
            names = [session.name for session in known if session.owner == user]
        else:
            _check_known(names, known, user)
        for name in names:
            await store.delete(name)
        return list(names)


def _check_known(names: Sequence[str], sessions: Sequence[Session], user: str) -> None:
    for name in names:
        if name not in {session.name for session in sessions}:
            own = [session.name for session in sessions if session.owner == user]
            yours = f"yours: {', '.join(own)}" if own else "you have none"
            raise NotFoundError(f"there is no session {name!r}; {yours}")
