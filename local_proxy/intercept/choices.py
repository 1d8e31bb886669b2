"""What a user chooses of interception."""

from __future__ import annotations

from enum import StrEnum


class Intercept(StrEnum):
    """Whether connections are intercepted."""

    AUTO = "auto"
    """Where that is possible."""
    ON = "on"
    """Or the command does not run."""
    OFF = "off"


class Connect(StrEnum):
    """When a connect into the mesh is answered."""

    AT_ONCE = "at-once"
    """Before the destination is dialled, as by a sidecar."""
    EXACT = "exact"
    """When the agent has dialled it, or could not, with the error that it got."""


class UdpPolicy(StrEnum):
    """What becomes of UDP that is no question to a name server and not local."""

    REFUSE = "refuse"
    PASS = "pass"  # noqa: S105 - no password
