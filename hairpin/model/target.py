"""Target: what a session takes requests from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A workload or Service, and a port of it: `[KIND/]NAME[:PORT]` with a namespace.

    `port` is a number, a port's name, or None where the target has only one.
    """

    name: str
    kind: str = "service"
    namespace: str = "default"
    port: int | str | None = None
