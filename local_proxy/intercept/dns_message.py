"""DNS messages (RFC 1035, EDNS of RFC 6891): as much as a name server of addresses needs. Pure."""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from local_proxy.intercept.addresses import IPAddress

SMALLEST = 512
"""Bytes that every client takes in a datagram."""
LARGEST_DATAGRAM = 1232
"""Bytes that are not fragmented anywhere."""
LARGEST = 65535
_HEADER = struct.Struct(">6H")
_RECORD = struct.Struct(">HHIH")  # type, class, TTL, length
_INTERNET = 1
_POINTER = 0xC0
_LONGEST_NAME, _LONGEST_LABEL, _MOST_JUMPS = 255, 63, 64
_ANSWER, _TRUNCATED, _WANTED, _AVAILABLE = 0x8000, 0x0200, 0x0100, 0x0080
_OPERATION = 0x7800
_QUESTION_NAME = 0xC000 | _HEADER.size
_REVERSE_4, _REVERSE_6 = ".in-addr.arpa", ".ip6.arpa"


class Type(IntEnum):
    """What is asked for. Other numbers are types too."""

    A = 1
    PTR = 12
    AAAA = 28
    OPT = 41
    SVCB = 64
    HTTPS = 65
    ANY = 255


class Code(IntEnum):
    """How an answer went."""

    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    NO_SUCH_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class BadMessageError(ValueError):
    """No message, or none that we know.

    Args:
        identity: the message's number, if it has one: then it can be answered.
        code: with what.
    """

    def __init__(self, problem: str, identity: int | None = None, code: Code = Code.FORMAT_ERROR) -> None:
        super().__init__(problem)
        self.identity = identity
        self.code = code


@dataclass(frozen=True, slots=True)
class Query:
    """A question."""

    identity: int
    recursion: bool
    name: str
    """In lower case, without the last dot; the root is empty."""
    type: int
    question: bytes
    """As it was asked, letters' case included: it is repeated in the answer, and some compare it."""
    datagram: int
    """How long an answer may be in a datagram."""
    extended: bool
    """Whether it came with EDNS."""


@dataclass(frozen=True, slots=True)
class Record:
    """An answer's line, about the name that was asked for."""

    type: int
    data: bytes


def address_record(address: IPAddress) -> Record:
    """The record of an address."""
    return Record(Type.A if isinstance(address, IPv4Address) else Type.AAAA, address.packed)


def name_record(name: str) -> Record:
    """The record of an address's name."""
    return Record(Type.PTR, encode_name(name))


def read_query(data: bytes) -> Query:
    """Read a question.

    Raises:
        BadMessageError: it is none.
    """
    if len(data) < _HEADER.size:
        raise BadMessageError("shorter than a header")
    identity, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _ANSWER:
        raise BadMessageError("an answer, no question")
    if flags & _OPERATION:
        raise BadMessageError("no query", identity, Code.NOT_IMPLEMENTED)
    if questions != 1:
        raise BadMessageError("not one question", identity)
    try:
        name, at = _read_name(data, _HEADER.size)
        kind, group = struct.unpack_from(">HH", data, at)
        end = at + 4
        size = None
        for record in _records(data, end, answers + authorities + additional):
            if record.type == Type.OPT:
                size = record.group
    except (struct.error, IndexError, BadMessageError) as error:
        raise BadMessageError(str(error), identity) from None
    if group not in (_INTERNET, Type.ANY):
        raise BadMessageError("not of the Internet", identity, Code.NOT_IMPLEMENTED)
    return Query(
        identity=identity,
        recursion=bool(flags & _WANTED),
        name=name,
        type=kind,
        question=data[_HEADER.size : end],
        datagram=max(SMALLEST, min(size or SMALLEST, LARGEST_DATAGRAM)),
        extended=size is not None,
    )


def answer(query: Query, code: Code, records: Iterable[Record] = (), *, seconds: int, limit: int) -> bytes:
    """The answer to a question; if it were longer than `limit`, marked so, with as many records as there is room for.

    Who can ask by TCP does (RFC 2181, 9). musl before 1.2.4 can't, and takes what came.
    """
    written = [
        struct.pack(">H", _QUESTION_NAME)
        + _RECORD.pack(record.type, _INTERNET, seconds, len(record.data))
        + record.data
        for record in records
    ]
    # The root's name, then the size that we take, as class.
    extension = b"\0" + _RECORD.pack(Type.OPT, LARGEST_DATAGRAM, 0, 0) if query.extended else b""
    flags = _ANSWER | _AVAILABLE | (_WANTED if query.recursion else 0) | code
    room = limit - _HEADER.size - len(query.question) - len(extension)
    ends = list(itertools.accumulate(map(len, written)))
    if ends and ends[-1] > room:
        flags, written = flags | _TRUNCATED, written[: bisect.bisect_right(ends, room)]
    header = _HEADER.pack(query.identity, flags, 1, len(written), 0, 1 if extension else 0)
    return b"".join([header, query.question, *written, extension])


def failure(identity: int, code: Code) -> bytes:
    """The answer to what could not be read."""
    return _HEADER.pack(identity, _ANSWER | _AVAILABLE | code, 0, 0, 0, 0)


def addresses(data: bytes) -> tuple[IPAddress, ...]:
    """The addresses in another server's answer; none if it can't be read."""
    try:
        _, _, questions, answers, _, _ = _HEADER.unpack_from(data)
        at = _HEADER.size
        for _ in range(questions):
            at = _read_name(data, at)[1] + 4
        kinds = {Type.A: 4, Type.AAAA: 16}
        return tuple(
            ip_address(record.data)
            for record in _records(data, at, answers)
            if kinds.get(record.type) == len(record.data)  # type: ignore[call-overload]
        )
    except (struct.error, IndexError, BadMessageError):
        return ()


def reverse_address(name: str) -> IPAddress | None:
    """The address whose name a PTR question asks for."""
    try:
        if name.endswith(_REVERSE_4):
            return IPv4Address(".".join(reversed(name.removesuffix(_REVERSE_4).split("."))))
        if name.endswith(_REVERSE_6):
            digits = "".join(reversed(name.removesuffix(_REVERSE_6).split(".")))
            return IPv6Address(bytes.fromhex(digits))
    except ValueError:
        pass
    return None


def encode_name(name: str) -> bytes:
    """A name, uncompressed."""
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


@dataclass(frozen=True, slots=True)
class _Found:
    type: int
    group: int
    data: bytes


def _records(data: bytes, at: int, number: int) -> Iterator[_Found]:
    for _ in range(number):
        _, at = _read_name(data, at)
        kind, group, _, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + length > len(data):
            raise BadMessageError("a record is longer than the message")
        yield _Found(kind, group, data[at : at + length])
        at += length


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """A name, and where it ends."""
    labels: list[str] = []
    end, jumps, size = None, 0, 0
    while length := data[at]:
        if length & _POINTER == _POINTER:
            end = at + 2 if end is None else end
            at = (length & ~_POINTER) << 8 | data[at + 1]
            jumps += 1
            if jumps > _MOST_JUMPS:
                raise BadMessageError("a name that never ends")
            continue
        if length > _LONGEST_LABEL:
            raise BadMessageError("a label of an unknown kind")
        label = data[at + 1 : at + 1 + length]
        size += length + 1
        if len(label) < length or size >= _LONGEST_NAME:
            raise BadMessageError("a name that is too long")
        # Names of services are ASCII; a dot or a zero in a label can be none's.
        labels.append(label.decode("ascii", errors="replace").replace(".", "\N{REPLACEMENT CHARACTER}").lower())
        at += 1 + length
    return ".".join(labels), at + 1 if end is None else end
