"""Names that Kubernetes and certificates take."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import TYPE_CHECKING

from hairpin.model.shape import Text

if TYPE_CHECKING:
    from hairpin.model.target import Target

LONGEST = 63
"""Characters of a DNS label (RFC 1035, 2.3.4)."""
LABEL = Text(
    what="a DNS label",
    remedy=f"use a-z, 0-9 and - (not at the ends), at most {LONGEST}",
    pattern=r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?",
    least=1,
    most=LONGEST,
)
"""RFC 1123's: namespaces, sessions and most other objects."""
PORT_NAME = Text(
    what="a port's name",
    remedy="use a-z, 0-9 and -, at most 15, with a letter among them",
    pattern=r"[a-z0-9](?:-?[a-z0-9])*",
    least=1,
    most=15,
)
"""RFC 6335's service names, as Kubernetes takes them for ports. All digits are refused beside: that is a number."""
PATH = Text(
    what="a name of Kubernetes objects",
    remedy="use a-z, 0-9, - and .",
    pattern=r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*",
    least=1,
    most=253,
)
"""A DNS subdomain: what workloads may be called, while Services have labels."""


def is_label(text: str) -> bool:
    """Whether it is a DNS label: at most 63 of a-z, 0-9 and -, no - at either end."""
    return len(text) <= LONGEST and re.fullmatch(LABEL.pattern, text) is not None


def check_label(field: str, text: str) -> str:
    """The label, if it is one.

    Raises:
        InvalidFieldError: it isn't.
    """
    return LABEL.read(text, field)


def session_name(owner: str, target: Target | None, environment: str | None, unique: str) -> str:
    """A readable DNS label for a session: `checkout-alice-1f2e3d`.

    Args:
        owner: whose it is; of `alice@example.com` and `system:serviceaccount:ci:alice` the name alone.
        target: what it takes requests from; without, `egress` stands in its place.
        environment: whose requests it takes; without, the owner stands in its place.
        unique: what makes it one of a kind: a short DNS label, kept whole.

    Raises:
        ValueError: `unique` is no label of 32 characters at most.
    """
    if not is_label(unique) or len(unique) > LONGEST // 2:
        raise ValueError(f"{unique!r} is no short DNS label")
    place = _slug(target.name if target else "egress")
    person = _slug(environment or re.split(r"[:/]", owner.partition("@")[0])[-1])
    room = LONGEST - len(unique) - 1
    if len(place) + 1 + len(person) > room:
        half = room // 2
        place = place[: max(half, room - 1 - len(person))].rstrip("-")
    readable = "-".join(word for word in (place, person) if word)[:room].rstrip("-") or "session"
    return f"{readable}-{unique}"


def _slug(text: str) -> str:
    """What a label can carry of a text."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def is_address(host: str) -> bool:
    """Whether a host is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
