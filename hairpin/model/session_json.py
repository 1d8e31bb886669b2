"""Sessions as JSON, in Kubernetes' shape: what the API and files carry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hairpin.errors import InvalidFieldError
from hairpin.model.match_json import match_from_json, match_to_json
from hairpin.model.names import check_label
from hairpin.model.reader import Reader
from hairpin.model.session import (
    AgentAddress,
    Condition,
    Mode,
    Phase,
    Session,
    SessionSpec,
    SessionStatus,
)
from hairpin.model.target import KINDS, LAST_PORT, Target

API_VERSION = "hairpin.dev/v1alpha1"
LEASES = (1, 3600)
"""Seconds."""
LONGEST_ENVIRONMENT = 253


def session_from_json(document: Any) -> Session:
    """Read a session; without metadata and status, as a laptop sends it, those are empty.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    reader = Reader(document, "")
    reader.take("apiVersion", API_VERSION)
    reader.take("kind", "Session")
    metadata = reader.section("metadata", {})
    created = _time(metadata, "creationTimestamp")
    spec = spec_from_json(reader.take("spec"))
    status = reader.section("status", {})
    session = Session(
        name=metadata.text("name", ""),
        namespace=metadata.text("namespace", ""),
        owner=status.text("owner", ""),
        created=created or datetime(1970, 1, 1, tzinfo=UTC),
        spec=spec,
        status=_status(status),
    )
    for part in (reader, metadata, status):
        part.finish()
    return session


def session_to_json(session: Session) -> dict[str, Any]:
    """Write a session whole."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Session",
        "metadata": {
            "name": session.name,
            "namespace": session.namespace,
            "creationTimestamp": _timestamp(session.created),
        },
        "spec": spec_to_json(session.spec),
        "status": {"owner": session.owner, **_status_to_json(session.status)},
    }


def spec_from_json(document: Any) -> SessionSpec:
    """Read and check what a laptop asks for.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    reader = Reader(document, "spec")
    match = reader.take("match", None)
    spec = SessionSpec(
        mode=_mode(reader),
        target=_target(reader.take("target", None)),
        environment=reader.text("environment", "") or None,
        match=match_from_json(match, "spec.match") if match is not None else None,
        certificate_request=reader.text("certificateRequest", ""),
        local_port=reader.port("localPort") if reader.take("localPort", None) is not None else None,
        lease_seconds=reader.take("leaseSeconds", 10),
    )
    reader.finish()
    check_spec(spec)
    return spec


def check_spec(spec: SessionSpec) -> None:
    """What must hold between the fields.

    Raises:
        InvalidFieldError: it doesn't.
    """
    shortest, longest = LEASES
    lease = spec.lease_seconds
    if not isinstance(lease, int) or isinstance(lease, bool) or not shortest <= lease <= longest:
        raise InvalidFieldError("spec.leaseSeconds", lease, "is no lease", f"use {shortest} to {longest} seconds")
    if spec.environment is not None:
        _check_environment(spec.environment)
    match spec.mode:
        case Mode.MIRROR:
            raise InvalidFieldError("spec.mode", "mirror", "is not served yet", "use steal or egress")
        case Mode.EGRESS:
            if spec.target is not None:
                raise InvalidFieldError(
                    "spec.target", str(spec.target), "is not used in mode egress", "leave it out, or use mode steal"
                )
            if spec.match is not None:
                raise InvalidFieldError("spec.match", "…", "is not used in mode egress", "leave it out")
        case Mode.STEAL:
            if spec.target is None:
                raise InvalidFieldError("spec.target", None, "is missing", "name a target, or use mode egress")
            if spec.environment is None and spec.match is None:
                remedy = "name an environment or a match: a session without would take everyone's requests"
                raise InvalidFieldError("spec.environment", None, "is missing", remedy)


def spec_to_json(spec: SessionSpec) -> dict[str, Any]:
    """Write a spec; what is not set is left out."""
    target = spec.target
    fields: dict[str, Any] = {
        "mode": spec.mode.value,
        "target": None if target is None else _target_to_json(target),
        "environment": spec.environment,
        "match": None if spec.match is None else match_to_json(spec.match),
        "certificateRequest": spec.certificate_request or None,
        "localPort": spec.local_port,
        "leaseSeconds": spec.lease_seconds,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _target_to_json(target: Target) -> dict[str, Any]:
    document: dict[str, Any] = {"kind": target.kind, "name": target.name, "namespace": target.namespace}
    return document if target.port is None else {**document, "port": target.port}


def _target(document: Any) -> Target | None:
    if document is None:
        return None
    reader = Reader(document, "spec.target")
    port = reader.take("port", None)
    if isinstance(port, int) and (isinstance(port, bool) or not 0 < port <= LAST_PORT):
        raise InvalidFieldError("spec.target.port", port, "is not a port", f"use 1 to {LAST_PORT}, or a port's name")
    if port is not None and not isinstance(port, int):
        check_label("spec.target.port", str(port))
    kind = reader.text("kind", "service")
    if kind not in KINDS:
        raise InvalidFieldError("spec.target.kind", kind, "is not a kind", f"use one of {', '.join(KINDS)}")
    target = Target(
        name=check_label("spec.target.name", reader.text("name")),
        kind=kind,
        namespace=check_label("spec.target.namespace", reader.text("namespace", "default")),
        port=port,
    )
    reader.finish()
    return target


def _mode(reader: Reader) -> Mode:
    value = reader.text("mode", Mode.STEAL.value)
    if value not in list(Mode):
        raise InvalidFieldError(reader.path("mode"), value, "is not a mode", f"use one of {', '.join(Mode)}")
    return Mode(value)


def _check_environment(name: str) -> None:
    if (
        len(name) > LONGEST_ENVIRONMENT
        or not name.isprintable()
        or name != name.strip()
        or any(c in name for c in ",;")
    ):
        remedy = "use what the header carries: printable, no commas, semicolons or spaces around it"
        raise InvalidFieldError("spec.environment", name, "can't be an environment's name", remedy)


def _status(reader: Reader) -> SessionStatus:
    phase = reader.text("phase", Phase.PENDING.value)
    if phase not in list(Phase):
        raise InvalidFieldError(reader.path("phase"), phase, "is not a phase", f"one of {', '.join(Phase)}")
    return SessionStatus(
        phase=Phase(phase),
        certificate=reader.text("certificate", ""),
        certificate_authority=reader.text("certificateAuthority", ""),
        agent_identity=reader.text("agentIdentity", ""),
        agents=tuple(_agent(entry, i) for i, entry in enumerate(reader.items("agents", []))),
        tunnels=tuple(reader.texts("tunnels", [])),
        last_seen=_time(reader, "lastSeen"),
        resolved_target=reader.text("resolvedTarget", ""),
        conditions=tuple(_condition(entry, i) for i, entry in enumerate(reader.items("conditions", []))),
    )


def _status_to_json(status: SessionStatus) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "phase": status.phase.value,
        "certificate": status.certificate,
        "certificateAuthority": status.certificate_authority,
        "agentIdentity": status.agent_identity,
        "agents": [
            {"name": a.name, "host": a.host, "tunnelPort": a.tunnel_port, "egressPort": a.egress_port}
            for a in status.agents
        ],
        "tunnels": list(status.tunnels),
        "lastSeen": _timestamp(status.last_seen) if status.last_seen else None,
        "resolvedTarget": status.resolved_target,
        "conditions": [{"type": c.type, "message": c.message} for c in status.conditions],
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def _agent(document: Any, index: int) -> AgentAddress:
    reader = Reader(document, f"status.agents[{index}]")
    agent = AgentAddress(
        name=reader.text("name"),
        host=reader.text("host"),
        tunnel_port=reader.port("tunnelPort"),
        egress_port=reader.port("egressPort"),
    )
    reader.finish()
    return agent


def _condition(document: Any, index: int) -> Condition:
    reader = Reader(document, f"status.conditions[{index}]")
    condition = Condition(type=reader.text("type"), message=reader.text("message"))
    reader.finish()
    return condition


def _time(reader: Reader, field: str) -> datetime | None:
    text = reader.text(field, "")
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidFieldError(reader.path(field), text, "is not a time", "write RFC 3339, with a zone") from None
    if time.tzinfo is None:
        raise InvalidFieldError(reader.path(field), text, "has no time zone", "write RFC 3339, with a zone")
    return time.astimezone(UTC)


def _timestamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
