"""Names that Kubernetes and certificates take: DNS labels (RFC 1123)."""

from __future__ import annotations

import re

from hairpin.errors import InvalidFieldError
from hairpin.model.target import Target

LONGEST = 63
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_label(text: str) -> bool:
    """Whether it is a DNS label: at most 63 of a–z, 0–9 and -, no - at either end."""
    return bool(_LABEL.fullmatch(text))


def check_label(field: str, text: str) -> str:
    """The label, if it is one.

    Raises:
        InvalidFieldError: it isn't.
    """
    if not is_label(text):
        remedy = f"use a-z, 0-9 and - (not at the ends), at most {LONGEST}"
        raise InvalidFieldError(field, text, "is not a DNS label", remedy)
    return text


def session_name(owner: str, target: Target | None, environment: str | None, unique: str) -> str:
    """A readable DNS label for a session: `checkout-alice-1f2e3d`.

    Args:
        owner: whose it is.
        target: what it takes requests from; `egress` in the name without.
        environment: whose requests it takes, if it has one; the owner in its place without.
        unique: what makes it one of a kind: lower-case letters and digits.
    """
    words = [target.name if target else "egress", environment or owner]
    readable = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    return f"{readable[: LONGEST - len(unique) - 1].rstrip('-') or 'session'}-{unique}"
