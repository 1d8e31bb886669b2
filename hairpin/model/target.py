"""Target: what a session takes requests from."""

from __future__ import annotations

from dataclasses import dataclass

from hairpin.errors import InvalidFieldError
from hairpin.model.names import LABEL, PATH, PORT_NAME
from hairpin.model.shape import Choice, Text, Whole
from hairpin.model.suggest import closest

KINDS = ("service", "deployment", "statefulset", "daemonset", "rollout", "pod")
SHORT_KINDS = {
    "svc": "service",
    "deploy": "deployment",
    "sts": "statefulset",
    "ds": "daemonset",
    "ro": "rollout",
    "po": "pod",
}
"""As kubectl has them; for people, not in files."""
KIND = Choice(KINDS)
PORT = Whole(1, 65535)
FORM = "[KIND/]NAME[:PORT]"


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
        head, colon, port = text.partition(":")
        kind, slash, name = head.rpartition("/")
        kind = SHORT_KINDS.get(kind.lower(), kind.lower()) if slash else "service"
        if kind not in KINDS:
            guess = closest(kind, KINDS)
            remedy = (
                f"did you mean {guess}/{name}?" if guess else f"use one of {', '.join(KINDS)}; a namespace goes into -n"
            )
            raise InvalidFieldError(field, text, f"has an unknown kind {kind!r}", remedy)
        if not name or (colon and not port):
            raise InvalidFieldError(field, text, f"lacks a {'port' if name else 'name'}", f"write {FORM}")
        try:
            name_of(kind).read(name, field)
        except InvalidFieldError as error:
            short = f"write {name.partition('.')[0]}, and its namespace into -n" if "." in name else error.remedy
            raise InvalidFieldError(field, text, f"has a name {name!r}, which {error.problem}", short) from None
        try:
            return cls(name=name, kind=kind, namespace=namespace, port=_port(port, field) if colon else None)
        except InvalidFieldError as error:
            raise InvalidFieldError(field, text, f"has a port {port}, which {error.problem}", error.remedy) from None

    def __str__(self) -> str:
        """As it is written, without the namespace."""
        return f"{self.kind}/{self.name}" + (f":{self.port}" if self.port is not None else "")


def name_of(kind: str) -> Text:
    """What an object of this kind may be called."""
    return LABEL if kind == "service" else PATH


def port_name(value: str, where: str) -> str:
    """A port's name.

    Raises:
        InvalidFieldError: it can't be one.
    """
    if value.isdigit():
        raise InvalidFieldError(where, value, "is a number in quotes", "write it without")
    return PORT_NAME.read(value, where)


def _port(text: str, field: str) -> int | str:
    if text.isascii() and text.isdigit():
        return PORT.read(int(text[:6]), field)  # more digits are out of range too
    return PORT_NAME.read(text, field)
