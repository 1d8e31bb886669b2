"""The conditions that the controller sets on sessions, by name."""

from __future__ import annotations

from hairpin.errors import InvalidFieldError
from hairpin.model.session import Condition

REFUSED = "Refused"
"""The reason of a condition that has its session refused. The others only tell something."""
REMARK = "Remark"
WAITING = "Waiting"
"""The reason of a condition that keeps a session from being served, and goes away by itself or by an operator."""

# What can't be taken
INVALID = "Invalid"
VERSION_SKEW = "VersionSkew"
NO_SUCH_TARGET = "NoSuchTarget"
NO_SUCH_PORT = "NoSuchPort"
NO_SERVICE = "NoService"
NO_SELECTOR = "NoSelector"
NO_SIDECAR = "NoSidecar"
NOT_HTTP = "NotHTTP"
NOT_A_MEMBER = "NotAMember"
BAD_ENVIRONMENT = "BadEnvironment"
BAD_MATCH = "BadMatch"
HELD = "Held"
TOO_MANY = "TooManySessions"
OVERLAPPING_WORKLOADS = "OverlappingWorkloads"
NO_IDENTITY_AGENT = "NoIdentityAgent"
NO_MIRROR = "NoMirror"

# What is waited for
NO_ADMISSION_POLICY = "NoAdmissionPolicy"
NO_AGENT = "NoAgent"
NO_WORKLOAD = "NoWorkload"
TUNNEL_MISSING = "TunnelMissing"
AGENT_HIDDEN = "AgentHidden"
IGNORED = "IgnoredByIstiod"
NOT_WRITTEN = "NotWritten"

# What is told
OTHER_ENVOY_FILTER = "OtherEnvoyFilter"
ALSO_STEERS = "AlsoSteers"
OWN_DEPLOYMENT = "OwnDeployment"
PROTOCOL_DETECTED = "ProtocolDetected"
SELECTED_BY_TEMPLATE = "SelectedByTemplate"
LEASE_BOUNDED = "LeaseBounded"
PORT_NOT_DECLARED = "PortNotDeclared"
DRAINING = "Draining"


class RefusedError(Exception):
    """A session can't be had as it is."""

    def __init__(self, condition: Condition) -> None:
        super().__init__(condition.message)
        self.condition = condition


def refusal(kind: str, message: str) -> RefusedError:
    """The error with a condition of this type."""
    return RefusedError(Condition(type=kind, message=message, reason=REFUSED))


def field_refusal(kind: str, field: str, value: object, problem: str, remedy: str) -> RefusedError:
    """The same for a field that can't be used."""
    return refusal(kind, str(InvalidFieldError(field, value, problem, remedy)))


def remark(kind: str, message: str) -> Condition:
    """A condition that only tells something."""
    return Condition(type=kind, message=message, reason=REMARK)


def waiting(kind: str, message: str) -> Condition:
    """A condition that says what the session waits for."""
    return Condition(type=kind, message=message, reason=WAITING)
