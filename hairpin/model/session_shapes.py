"""A session's shape in JSON, which is Kubernetes' own: what is read, how it is checked, and the source of its schemas."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hairpin.errors import InvalidFieldError
from hairpin.model.match import Match
from hairpin.model.match_json import match_from_json
from hairpin.model.names import LABEL
from hairpin.model.routing_key_json import ROUTING_KEY
from hairpin.model.session import (
    AgentAddress,
    Condition,
    EgressAddress,
    EgressIdentity,
    Mode,
    Phase,
    Session,
    SessionSpec,
    SessionStatus,
)
from hairpin.model.shape import (
    Choice,
    Field,
    JsonSchema,
    ListOf,
    Moment,
    Record,
    Text,
    Whole,
)
from hairpin.model.target import KIND, KINDS, PORT, Target, name_of, port_name
from hairpin.model.version import UNSTATED, VERSION

API_VERSION = "hairpin.dev/v1alpha1"
KIND_OF_SESSION = "Session"
LEASE = Whole(1, 3600)
"""Seconds."""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When a session was created that has not been yet."""

ENVIRONMENT = Text(
    what="an environment's name",
    remedy="use what a header or a baggage member can carry: letters, digits, and signs but , ; and blanks",
    pattern=r"[\x21-\x2b\x2d-\x3a\x3c-\x7e]+",
    least=1,
    most=253,
)
_PEM = Text(what="a text in PEM", remedy="send it whole", pattern=r"[\t\n\r\x20-\x7e]*", most=65536)
_TEXT = Text(what="a text", remedy="shorten it", most=4096)
_MODE = Choice(tuple(mode.value for mode in Mode))


class _MatchShape:
    """A match, which is read by `match_json` and refers to itself in the schema."""

    def read(self, value: Any, where: str) -> Match:
        return match_from_json(value, where)

    def schema(self) -> JsonSchema:
        return {"$ref": "#/$defs/match"}


class _PortShape:
    """A port's number or name."""

    def read(self, value: Any, where: str) -> int | str:
        return port_name(value, where) if isinstance(value, str) else PORT.read(value, where)

    def schema(self) -> JsonSchema:
        name = {"type": "string", "minLength": 1, "maxLength": 15, "pattern": "^[a-z0-9](?:-?[a-z0-9])*$"}
        return {"oneOf": [PORT.schema(), {**name, "not": {"pattern": "^[0-9]+$"}}]}


def _build_target(found: dict[str, Any], where: str) -> Target:
    name_of(found["kind"]).read(found["name"], f"{where}.name")
    return Target(**found)


TARGET = Record(
    fields={
        "kind": Field(KIND, default="service"),
        "name": Field(name_of("pod"), needed=True),
        "namespace": Field(LABEL, default="default"),
        "port": Field(_PortShape()),
    },
    build=_build_target,
    rules={
        "if": {"required": ["kind"], "properties": {"kind": {"enum": [kind for kind in KINDS if kind != "service"]}}},
        "else": {"properties": {"name": LABEL.schema()}},
    },
)


def _build_spec(found: dict[str, Any], where: str) -> SessionSpec:
    spec = SessionSpec(
        mode=Mode(found["mode"]),
        target=found["target"],
        environment=found["environment"],
        match=found["match"],
        certificate_request=found["certificateRequest"],
        local_port=found["localPort"],
        lease_seconds=found["leaseSeconds"],
        owner=found["owner"],
        identity=EgressIdentity(found["identity"]),
        client=found["client"],
    )
    check_spec(spec, where)
    return spec


def check_spec(spec: SessionSpec, where: str = "spec") -> None:
    """What must hold between the fields of a spec.

    Raises:
        InvalidFieldError: it doesn't.
    """
    prefix = f"{where}." if where else ""
    if spec.mode is Mode.EGRESS:
        for name, value in (("target", spec.target), ("match", spec.match)):
            if value is not None:
                problem = "has no meaning in mode egress, which takes no requests"
                raise InvalidFieldError(f"{prefix}{name}", _shown(value), problem, "leave it out, or use mode steal")
        return
    if spec.target is None:
        raise InvalidFieldError(f"{prefix}target", None, "is missing", "name a target, or use mode egress")
    if spec.environment is None and spec.match is None:
        remedy = "name an environment or a match: without either the session would take everyone's requests"
        raise InvalidFieldError(f"{prefix}environment", None, "is missing", remedy)


def _shown(value: Target | Match) -> str:
    return str(value) if isinstance(value, Target) else "…"


SPEC = Record(
    fields={
        "mode": Field(_MODE, default=Mode.STEAL.value),
        "target": Field(TARGET),
        "environment": Field(ENVIRONMENT),
        "match": Field(_MatchShape()),
        "certificateRequest": Field(_PEM, default=""),
        "localPort": Field(PORT),
        "leaseSeconds": Field(LEASE, default=10),
        "owner": Field(_TEXT, default=""),
        "identity": Field(Choice(tuple(EgressIdentity)), default=EgressIdentity.AGENT.value),
        "client": Field(VERSION, default=UNSTATED),
    },
    build=_build_spec,
    rules={
        "if": {"required": ["mode"], "properties": {"mode": {"const": Mode.EGRESS.value}}},
        "then": {"not": {"anyOf": [{"required": ["target"]}, {"required": ["match"]}]}},
        "else": {"required": ["target"], "anyOf": [{"required": ["environment"]}, {"required": ["match"]}]},
    },
)

AGENT_ADDRESS = Record(
    fields={
        "name": Field(LABEL, needed=True),
        "host": Field(_TEXT, default=""),
        "tunnelPort": Field(PORT, needed=True),
        "egressPort": Field(PORT, needed=True),
        "version": Field(_TEXT, default=""),
    },
    build=lambda found, _: AgentAddress(
        name=found["name"],
        host=found["host"],
        tunnel_port=found["tunnelPort"],
        egress_port=found["egressPort"],
        version=found["version"],
    ),
)

EGRESS_ADDRESS = Record(
    fields={
        "name": Field(LABEL, needed=True),
        "host": Field(_TEXT, default=""),
        "port": Field(PORT, needed=True),
    },
    build=lambda found, _: EgressAddress(name=found["name"], host=found["host"], port=found["port"]),
)

CONDITION = Record(
    fields={
        "type": Field(_TEXT, needed=True),
        "message": Field(_TEXT, needed=True),
        "status": Field(Choice(("True", "False", "Unknown")), default="True"),
        "reason": Field(_TEXT, default=""),
        "lastTransitionTime": Field(Moment()),
    },
    build=lambda found, _: Condition(
        type=found["type"], message=found["message"], status=found["status"], reason=found["reason"]
    ),
)


def _build_status(found: dict[str, Any], _: str) -> tuple[str, SessionStatus]:
    status = SessionStatus(
        id=found["id"],
        phase=Phase(found["phase"]),
        certificate=found["certificate"],
        certificate_authority=found["certificateAuthority"],
        agent_identity=found["agentIdentity"],
        agents=found["agents"],
        egress=found["egress"],
        egress_identity=found["egressIdentity"],
        tunnels=found["tunnels"],
        last_seen=found["lastSeen"],
        resolved_target=found["resolvedTarget"],
        routing_key=found["routingKey"],
        conditions=found["conditions"],
        server=found["server"],
    )
    return found["owner"], status


STATUS = Record(
    fields={
        "owner": Field(_TEXT, default=""),
        "id": Field(_TEXT, default=""),
        "phase": Field(Choice(tuple(Phase)), default=Phase.PENDING.value),
        "certificate": Field(_PEM, default=""),
        "certificateAuthority": Field(_PEM, default=""),
        "agentIdentity": Field(_TEXT, default=""),
        "agents": Field(ListOf(AGENT_ADDRESS), default=()),
        "egress": Field(ListOf(EGRESS_ADDRESS), default=()),
        "egressIdentity": Field(_TEXT, default=""),
        "tunnels": Field(ListOf(LABEL), default=()),
        "lastSeen": Field(Moment()),
        "resolvedTarget": Field(_TEXT, default=""),
        "routingKey": Field(ROUTING_KEY),
        "conditions": Field(ListOf(CONDITION), default=()),
        "server": Field(VERSION, default=UNSTATED),
    },
    build=_build_status,
)

METADATA = Record(
    fields={"name": Field(LABEL), "namespace": Field(LABEL), "creationTimestamp": Field(Moment())},
    build=lambda found, _: found,
    open=True,  # Kubernetes' own: labels, uid, …
)


def _build_session(found: dict[str, Any], _: str) -> Session:
    metadata = found["metadata"] or {}
    owner, status = found["status"] or ("", SessionStatus())
    return Session(
        name=metadata.get("name") or "",
        namespace=metadata.get("namespace") or "",
        owner=owner,
        created=metadata.get("creationTimestamp") or NEVER,
        spec=found["spec"],
        status=status,
    )


SESSION = Record(
    fields={
        "apiVersion": Field(Choice((API_VERSION,))),
        "kind": Field(Choice((KIND_OF_SESSION,))),
        "metadata": Field(METADATA),
        "spec": Field(SPEC, needed=True),
        "status": Field(STATUS),
    },
    build=_build_session,
)
