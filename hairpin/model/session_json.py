"""Sessions in JSON: what the API and files carry, read by `session_shapes` and written here."""

from __future__ import annotations

import dataclasses
from typing import Any

from hairpin.model.match_json import match_to_json
from hairpin.model.routing_key_json import routing_key_to_json
from hairpin.model.session import (
    AgentAddress,
    Condition,
    EgressIdentity,
    Session,
    SessionSpec,
    SessionStatus,
)
from hairpin.model.session_shapes import API_VERSION, KIND_OF_SESSION, SESSION, SPEC, STATUS
from hairpin.model.shape import (
    moment_text,
    without_unknown,
)
from hairpin.model.version import version_to_json


def session_from_json(document: Any) -> Session:
    """Read a session. As a laptop sends it, `spec` is enough: name, owner and the like are empty then.

    Raises:
        InvalidFieldError: a field can't be used; names the dotted field, the value and the remedy.
    """
    return SESSION.read(document, "")


def told_session(document: Any) -> Session:
    """Read a session as a control plane tells it: what is not known of its status, a newer one has added.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    if isinstance(document, dict) and "status" in document:
        document = {**document, "status": without_unknown(STATUS, document["status"])}
    return session_from_json(document)


def session_to_json(session: Session) -> dict[str, Any]:
    """Write a session whole."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND_OF_SESSION,
        "metadata": {
            "name": session.name,
            "namespace": session.namespace,
            "creationTimestamp": moment_text(session.created),
        },
        "spec": spec_to_json(session.spec),
        "status": {"owner": session.owner, **status_to_json(session.status)},
    }


def spec_from_json(document: Any, where: str = "spec") -> SessionSpec:
    """Read and check what a laptop asks for.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    return SPEC.read(document, where)


def spec_to_json(spec: SessionSpec) -> dict[str, Any]:
    """Write a spec; what is not set is left out."""
    return _set_only(
        {
            "mode": spec.mode.value,
            "target": None if spec.target is None else _set_only(dataclasses.asdict(spec.target)),
            "environment": spec.environment,
            "match": None if spec.match is None else match_to_json(spec.match),
            "certificateRequest": spec.certificate_request,
            "localPort": spec.local_port,
            "leaseSeconds": spec.lease_seconds,
            "owner": spec.owner,
            "identity": None if spec.identity is EgressIdentity.AGENT else spec.identity.value,
            "client": version_to_json(spec.client),
        }
    )


def status_from_json(document: Any, where: str = "status") -> SessionStatus:
    """Read a status.

    Raises:
        InvalidFieldError: a field can't be used.
    """
    status: SessionStatus = STATUS.read(document, where)[1]
    return status


def status_to_json(status: SessionStatus) -> dict[str, Any]:
    """Write a status; what is not set is left out. The owner is not in it."""
    return _set_only(
        {
            "id": status.id,
            "phase": status.phase.value,
            "certificate": status.certificate,
            "certificateAuthority": status.certificate_authority,
            "agentIdentity": status.agent_identity,
            "agents": [_agent_to_json(address) for address in status.agents],
            "egress": [_set_only(dataclasses.asdict(address)) for address in status.egress],
            "egressIdentity": status.egress_identity,
            "tunnels": list(status.tunnels),
            "lastSeen": moment_text(status.last_seen) if status.last_seen else None,
            "resolvedTarget": status.resolved_target,
            "routingKey": routing_key_to_json(status.routing_key) if status.routing_key else None,
            "conditions": [_condition_to_json(condition) for condition in status.conditions],
            "server": version_to_json(status.server),
        }
    )


def _agent_to_json(agent: AgentAddress) -> dict[str, Any]:
    ports = {"tunnelPort": agent.tunnel_port, "egressPort": agent.egress_port}
    return _set_only({"name": agent.name, "host": agent.host, **ports, "version": agent.version})


def _set_only(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def _condition_to_json(condition: Condition) -> dict[str, Any]:
    document = {"type": condition.type, "message": condition.message, "status": condition.status}
    return {**document, "reason": condition.reason} if condition.reason else document
