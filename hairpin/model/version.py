"""Which hairpin laptop, agent and control plane are, and whether they go together. Nothing upgrades itself.

The version is for people. What decides is the protocol: a number that is raised when programs of the former one can't work
with those of the next (docs/decisions/0022). Another version of the same protocol may lack a feature, and then says so where
it is asked for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from hairpin import __version__
from hairpin.errors import SkewError
from hairpin.model.shape import Field, Record, Text, Whole

PROTOCOL: Final = 1
"""What this hairpin speaks."""
_UNSTATED = 1
"""The protocol of those who say nothing of it: the first, which was spoken before versions were stated."""
_NAME: Final = r"[0-9A-Za-z][0-9A-Za-z.+_-]*"
_LONGEST = 64
_PRODUCT = re.compile(rf"hairpin/({_NAME})")
_SPOKEN = re.compile(r"protocol/([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Version:
    """What one program says of itself."""

    text: str = ""
    """Empty: it says nothing."""
    protocol: int = _UNSTATED

    def __str__(self) -> str:
        """For people."""
        return f"{self.text or 'of a version it does not state'} (protocol {self.protocol})"


UNSTATED: Final = Version()
OURS: Final = Version(__version__, PROTOCOL)
VERSION = Record(
    fields={
        "version": Field(
            Text(what="a version", remedy="write it like 1.2.0", pattern=_NAME, least=1, most=_LONGEST), needed=True
        ),
        "protocol": Field(Whole(1, 9999), needed=True),
    },
    build=lambda found, _: Version(found["version"], found["protocol"]),
)


def version_to_json(version: Version) -> dict[str, Any] | None:
    """Write it; None where nothing is stated."""
    return {"version": version.text, "protocol": version.protocol} if version.text else None


def user_agent(version: Version = OURS) -> str:
    """What a program calls itself as an HTTP client."""
    return f"hairpin/{version.text} protocol/{version.protocol}"


def version_of(agent: str) -> Version:
    """What an HTTP client that calls itself so is."""
    product, spoken = _PRODUCT.search(agent), _SPOKEN.search(agent)
    if product is None or len(product[1]) > _LONGEST:
        return UNSTATED
    return Version(product[1], int(spoken[1]) if spoken else _UNSTATED)


def stated_version(document: Any) -> Version:
    """What a laptop says it is, in a Session that perhaps can't be read otherwise: a newer one knows other fields."""
    spec = document.get("spec") if isinstance(document, dict) else None
    client = spec.get("client") if isinstance(spec, dict) else None
    if not isinstance(client, dict) or not isinstance(client.get("version"), str):
        return UNSTATED
    protocol = client.get("protocol")
    return Version(client["version"][:_LONGEST], protocol if type(protocol) is int else _UNSTATED)


def check_laptop(laptop: Version, server: Version = OURS) -> None:
    """Whether a laptop and a control plane go together.

    Raises:
        SkewError: they don't; it names both, and who is to be upgraded.
    """
    if laptop.protocol == server.protocol:
        return
    if laptop.protocol < server.protocol:
        remedy = f"install hairpin {server.text or 'of the same protocol'} on the laptop"
    else:
        older = server.text or f"of protocol {server.protocol}"
        remedy = f"ask an operator for `hairpin install` of {laptop.text}, or use hairpin {older} on the laptop"
    raise SkewError(
        f"the laptop's hairpin is {laptop}, the control plane's is {server}: they don't work together; {remedy}"
    )


def check_agent(agent: Version, server: Version = OURS) -> None:
    """Whether an agent and a control plane go together.

    Raises:
        SkewError: they don't.
    """
    if agent.protocol != server.protocol:
        newer = max((agent, server), key=lambda version: version.protocol)
        raise SkewError(
            f"the agent is hairpin {agent}, the control plane {server}: they don't work together; "
            f"an operator brings both to one version by `hairpin install` of {newer.text}"
        )


def versions_text(server: Version, agents: tuple[str, ...], ours: Version = OURS) -> str:
    """That others are of other versions, which go together with ours; nothing where all are equal or say nothing."""
    others = [f"the control plane is {server.text}"] if server.text not in ("", ours.text) else []
    if differing := sorted({text for text in agents if text not in ("", ours.text)}):
        others.append(f"the agent is {' and '.join(differing)}")
    return f"this is hairpin {ours.text}, {', '.join(others)}: they go together" if others else ""
