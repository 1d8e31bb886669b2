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


class UdpPolicy(StrEnum):
    """What becomes of UDP that is no question to a name server and not local."""

    REFUSE = "refuse"
    PASS = "pass"  # noqa: S105 - no password
