"""What the laptop's Envoy says of each connection through its gateway, as soon as it knows, and what that means. Pure.

Envoy's fluentd access log writes records one after the other, unbuffered, as MessagePack (msgpack.org's specification):
`[tag, [[time, {...}]]]`. `local_proxy.gateway` says what is in a record. Why no library reads it: decision 27.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from hairpin.headers import FAILED_HEADER, REFUSED_HEADER

_LENGTHS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}  # strings and bytes
_COUNTS = {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}  # arrays, then maps
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_MOST_BYTES = 1 << 20
"""Of one message. A record has some hundred."""
_FAILURES = (
    ("connection_timeout", errno.ETIMEDOUT, "no answer in time"),
    ("timed_out", errno.ETIMEDOUT, "no answer in time"),
    ("no_route_to_host", errno.EHOSTUNREACH, "the agent has no route to it"),
    ("network_is_unreachable", errno.ENETUNREACH, "the agent can't reach its network"),
    ("connection_refused", errno.ECONNREFUSED, "nothing listens there"),
)
"""What the agent's Envoy says of a connect that failed (FAILED_HEADER), in lower case, and what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a connection's CONNECT."""

    source: str
    """The connection's own end, as Envoy writes it: `127.0.0.1:41234`."""
    status: int = 0
    """The agent's answer; 0: there is none."""
    refused: str = ""
    """Why the agent refuses, in its words."""
    failed: str = ""
    """Why it could not connect, in its Envoy's words."""
    flags: str = ""
    """What this machine's Envoy says of it."""

    @property
    def connected(self) -> bool:
        """Whether the agent has let it through, and the destination is connected."""
        return self.status == HTTPStatus.OK


def problem(answer: Answer | None) -> tuple[int, str]:
    """The errno that a connect gets which failed, and why in words.

    Args:
        answer: None if nothing was heard.
    """
    if answer is None:
        return errno.ENETUNREACH, "hairpin's Envoy does not answer"
    if answer.refused:
        return (errno.ECONNREFUSED if answer.status == HTTPStatus.FORBIDDEN else errno.EHOSTUNREACH), answer.refused
    if not answer.status:
        return (
            errno.ENETUNREACH,
            f"the agent is not reached ({answer.flags})" if answer.flags else "no agent is reached",
        )
    if answer.status == HTTPStatus.FORBIDDEN:
        return errno.ENETUNREACH, "the agent does not know the session"
    if answer.status == HTTPStatus.GATEWAY_TIMEOUT:
        return errno.ETIMEDOUT, "no answer in time"
    said = answer.failed.lower()
    found = next(((number, words) for beginning, number, words in _FAILURES if beginning in said), None)
    return found or (errno.ECONNREFUSED, f"the agent could not connect ({answer.status})")


class AnswerReader:
    """Reads what Envoy writes, in whatever pieces it arrives."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Answer]:
        """The answers that are complete by now.

        Raises:
            ValueError: this is not what Envoy writes; the connection is of no more use.
        """
        self._rest += data
        while self._rest:
            try:
                value, end = _value(self._rest, 0)
            except (IndexError, struct.error):  # more is to come
                if len(self._rest) > _MOST_BYTES:
                    raise ValueError("a message without end") from None
                return
            self._rest = self._rest[end:]
            yield from _answers(value)


def _answers(message: Any) -> Iterator[Answer]:
    match message:
        case [str(), list(entries), *_]:
            for entry in entries:
                match entry:
                    case [_, {"from": str(source), **record}]:
                        yield _answer(source, record)


def _answer(source: str, record: dict[Any, Any]) -> Answer:
    answered = record.get("answer")
    listed = answered.get("headers") if isinstance(answered, dict) else None
    headers = {str(one.get("key")): str(one.get("value", "")) for one in listed or () if isinstance(one, dict)}
    status, flags = headers.get(":status", ""), record.get("flags")
    return Answer(
        source=source,
        status=int(status) if status.isdecimal() else 0,
        refused=headers.get(REFUSED_HEADER, ""),
        failed=headers.get(FAILED_HEADER, ""),
        flags=flags if isinstance(flags, str) and flags != "-" else "",
    )


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at an offset, and where it ends.

    Raises:
        IndexError, struct.error: it is not all there.
        ValueError: it is of a kind that Envoy does not write.
    """
    kind, at = data[at], at + 1
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind < 0x80 or kind >= 0xE0:  # noqa: PLR2004 # a small integer
        return kind if kind < 0x80 else kind - 256, at  # noqa: PLR2004
    if kind in _NUMBERS:
        return _unpacked(_NUMBERS[kind], data, at)
    if kind < 0xA0 or kind in _COUNTS:  # noqa: PLR2004
        count, at = _unpacked(_COUNTS[kind], data, at) if kind in _COUNTS else (kind & 0x0F, at)
        mapped = kind < 0x90 or kind in (0xDE, 0xDF)  # noqa: PLR2004
        items = []
        for _ in range(count * 2 if mapped else count):
            item, at = _value(data, at)
            items.append(item)
        return (dict(zip(map(str, items[::2]), items[1::2], strict=True)) if mapped else items), at
    if kind < 0xC0:  # noqa: PLR2004
        length = kind & 0x1F
    elif kind in _LENGTHS:
        length, at = _unpacked(_LENGTHS[kind], data, at)
    else:
        raise ValueError(f"a MessagePack value of kind {kind:#x}")
    if at + length > len(data):
        raise IndexError
    return data[at : at + length].decode(errors="replace"), at + length


def _unpacked(form: str, data: bytes, at: int) -> tuple[Any, int]:
    return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
