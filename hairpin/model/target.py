"""Target: what a session takes requests from."""

from __future__ import annotations

from dataclasses import dataclass

from hairpin.errors import InvalidFieldError
from hairpin.model.suggest import did_you_mean

KINDS = ("service", "deployment", "statefulset", "daemonset", "rollout", "pod")
LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Target:
    """A workload or Service, and a port of it: `[KIND/]NAME[:PORT]` with a namespace.

    `port` is a number, a port's name, or None where the target has only one.
    """

    name: str
    kind: str = "service"
    namespace: str = "default"
    port: int | str | None = None

    @classmethod
    def parse(cls, text: str, namespace: str = "default", field: str = "--target") -> Target:
        """Read `[KIND/]NAME[:PORT]`.

        Raises:
            InvalidFieldError: it can't be read.
        """
        from hairpin.model.names import is_label  # noqa: PLC0415 # names knows targets

        head, colon, port = text.partition(":")
        kind, slash, name = head.rpartition("/")
        if slash and kind not in KINDS:
            remedy = f"use one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}"
            raise InvalidFieldError(field, text, f"has an unknown kind {kind!r}", remedy)
        if not is_label(name):
            raise InvalidFieldError(field, text, "has no name that could be a service's", "write [KIND/]NAME[:PORT]")
        if colon and not is_label(port):
            raise InvalidFieldError(
                field, text, f"has a port {port!r}", "use its number or its name, as in checkout:80"
            )
        if port.isdigit() and not 0 < int(port) <= LAST_PORT:
            raise InvalidFieldError(field, text, f"has a port {port}", f"use 1 to {LAST_PORT}")
        number: int | str | None = (int(port) if port.isdigit() else port) if colon else None
        return cls(name=name, kind=kind or "service", namespace=namespace, port=number)

    def __str__(self) -> str:
        """As it is written, without the namespace."""
        return f"{self.kind}/{self.name}" + (f":{self.port}" if self.port is not None else "")
