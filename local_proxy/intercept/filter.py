"""Which system calls the kernel reports to us: a program for its packet filter machine, as bytes. Pure.

The filter sees a call's number and arguments, not what a pointer points to. What is not reported costs nothing that can be
measured (the kernel keeps the answer "always allowed" per number); what is reported costs two changes of process.

| call | reported |
|---|---|
| connect | always |
| socket | of UDP: it gets a socket whose number is of `PLACES`, so that the calls below can be told by number |
| sendto, recvfrom | only with an address: streams and connected sockets have none |
| sendmsg, sendmmsg, recvmsg, recvmmsg | only of descriptors of `PLACES`; streams have others |
| getpeername | always: it answers with the address that the program connected to |
| bind, listen | where asked for: they are called once per server |
| getsockname | where asked for: it answers with the port that the program believes to be bound to |
| getsockopt | where asked for, and SO_ERROR alone: it answers with a connect's exact error |
| sendmsg, sendmmsg, sendto with MSG_FASTOPEN | EOPNOTSUPP, as where fast open is off: it would connect past us |
| io_uring_setup | ENOSYS, as in Docker's default profile: its connects are not seen here |
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# BPF_LD|W|ABS, JEQ, JGE, JSET, ALU|AND|K, RET|K
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000  # SECCOMP_RET_*
_X32_BIT = 0x40000000
_MSG_FASTOPEN = 0x20000000
_SOL_SOCKET, _SO_ERROR = 1, 4
_AF_INET, _AF_INET6, _DATAGRAM, _TYPE_MASK, _UDP = 2, 10, 2, 0xF, 17  # this machine's names may not be Linux's

PLACES = range(960, 1024)
"""Numbers of UDP sockets' descriptors: as high as select(2) can take."""
_FEWEST = 4 * len(PLACES)


class Call(StrEnum):
    """A system call that can be reported."""

    SOCKET = "socket"
    CONNECT = "connect"
    SENDTO = "sendto"
    RECVFROM = "recvfrom"
    SENDMSG = "sendmsg"
    RECVMSG = "recvmsg"
    SENDMMSG = "sendmmsg"
    RECVMMSG = "recvmmsg"
    GETPEERNAME = "getpeername"
    GETSOCKNAME = "getsockname"
    BIND = "bind"
    LISTEN = "listen"
    GETSOCKOPT = "getsockopt"


LISTENING = frozenset({Call.BIND, Call.LISTEN, Call.GETSOCKNAME})
"""What moving ports needs."""
EXACT = frozenset({Call.GETSOCKOPT})
"""What exact errors need."""
ALWAYS = frozenset(Call) - LISTENING - EXACT
"""What interception of connections and names needs."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another architecture whose programs the same kernel runs. Its calls that lead out are refused; it may serve."""

    audit: int
    refused: tuple[int, ...]
    """Whatever their arguments."""
    socket: int
    """Refused of UDP: its sendmsg could not be told from a stream's."""
    sendmsg: int
    sendmmsg: int
    """Refused with MSG_FASTOPEN, as here."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Numbers of one architecture (arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h)."""

    audit: int
    """AUDIT_ARCH_* of linux/audit.h."""
    calls: dict[Call, int]
    seccomp: int
    pidfd_getfd: int = 438
    io_uring_setup: int = 425
    x32: bool = False
    foreign: tuple[Foreign, ...] = ()

    def call(self, number: int) -> Call | None:
        """The call of a number, if it is one that can be reported."""
        return next((call for call, own in self.calls.items() if own == number), None)


ARCHITECTURES = {
    "x86_64": Architecture(
        0xC000003E,
        {
            Call.SOCKET: 41,
            Call.CONNECT: 42,
            Call.SENDTO: 44,
            Call.RECVFROM: 45,
            Call.SENDMSG: 46,
            Call.RECVMSG: 47,
            Call.BIND: 49,
            Call.LISTEN: 50,
            Call.GETSOCKNAME: 51,
            Call.GETPEERNAME: 52,
            Call.GETSOCKOPT: 55,
            Call.RECVMMSG: 299,
            Call.SENDMMSG: 307,
        },
        seccomp=317,
        x32=True,
        # i386: socketcall, connect, sendto, io_uring_setup.
        foreign=(Foreign(0x40000003, (102, 362, 369, 425), socket=359, sendmsg=370, sendmmsg=345),),
    ),
    "aarch64": Architecture(
        0xC00000B7,
        {
            Call.SOCKET: 198,
            Call.BIND: 200,
            Call.LISTEN: 201,
            Call.CONNECT: 203,
            Call.GETSOCKNAME: 204,
            Call.GETPEERNAME: 205,
            Call.SENDTO: 206,
            Call.RECVFROM: 207,
            Call.GETSOCKOPT: 209,
            Call.SENDMSG: 211,
            Call.RECVMSG: 212,
            Call.RECVMMSG: 243,
            Call.SENDMMSG: 269,
        },
        seccomp=277,
        # 32-bit arm: connect, sendto, io_uring_setup.
        foreign=(Foreign(0x40000028, (283, 290, 425), socket=281, sendmsg=296, sendmmsg=374),),
    ),
}
"""By `os.uname().machine`."""


def places(limit: int) -> range:
    """`PLACES` where a process may have so many descriptors (RLIMIT_NOFILE's soft limit; negative if any number).

    None where it may have so few that they would be in the way.
    """
    stop = min(limit, PLACES.stop) if limit >= 0 else PLACES.stop
    return range(stop - len(PLACES), stop) if stop >= _FEWEST else range(0)


def filter_program(architecture: Architecture, reported: Iterable[Call] = ALWAYS, placed: range = PLACES) -> bytes:
    """The filter: an array of struct sock_filter.

    Args:
        architecture: of this machine.
        reported: the calls to report, some only with certain arguments; see above.
        placed: the descriptors of UDP sockets.
    """
    reported = frozenset(reported)
    refuse = _return(_ERRNO | errno.ENOSYS)
    program = [_instruction(_LOAD, _ARCHITECTURE), *_foreign(architecture), _instruction(_LOAD, _NUMBER)]
    if architecture.x32:
        program += [_instruction(_AT_LEAST, _X32_BIT, no=1), refuse]
    for call, number in architecture.calls.items():
        if call in reported:
            program += _when(number, _body(call, placed))
    program += _when(architecture.io_uring_setup, [refuse])
    return b"".join([*program, _return(_ALLOW)])


def _body(call: Call, placed: range) -> list[bytes]:
    match call:
        case Call.SOCKET:
            return _if_udp(_return(_NOTIFY))
        case Call.SENDTO:
            return [*_if_fast_open(3), *_if_pointer(4)]
        case Call.SENDMSG:
            return [*_if_fast_open(2), *_if_placed(placed)]
        case Call.SENDMMSG:
            return [*_if_fast_open(3), *_if_placed(placed)]
        case Call.RECVMSG | Call.RECVMMSG:
            return _if_placed(placed)
        case Call.RECVFROM:
            return _if_pointer(4)
        case Call.GETSOCKOPT:
            return _if_socket_error()
        case _:
            return [_return(_NOTIFY)]


def _foreign(architecture: Architecture) -> list[bytes]:
    """What becomes of calls that are not of this architecture; ours jump over it all."""
    refuse, allow = _return(_ERRNO | errno.ENOSYS), _return(_ALLOW)
    others: list[bytes] = []
    for foreign in architecture.foreign:
        chain = [_instruction(_LOAD, _NUMBER)]
        for number in foreign.refused:
            chain += _when(number, [refuse])
        chain += _when(foreign.socket, _if_udp(refuse))
        chain += _when(foreign.sendmsg, [*_if_fast_open(2), allow])
        chain += _when(foreign.sendmmsg, [*_if_fast_open(3), allow])
        chain.append(allow)
        others += _when(foreign.audit, chain)
    others.append(refuse)
    return [_instruction(_EQUAL, architecture.audit, yes=len(others)), *others]


def _when(value: int, body: list[bytes]) -> list[bytes]:
    """Run `body`, which returns, if the accumulator is `value`."""
    return [_instruction(_EQUAL, value, no=len(body)), *body]


def _if_pointer(argument: int) -> list[bytes]:
    """Notify if an argument is no null pointer, else allow. Both architectures are little-endian."""
    return [
        _instruction(_LOAD, _argument(argument)),
        _instruction(_EQUAL, 0, no=3),
        _instruction(_LOAD, _argument(argument) + 4),
        _instruction(_EQUAL, 0, no=1),
        _return(_ALLOW),
        _return(_NOTIFY),
    ]


def _if_socket_error() -> list[bytes]:
    """Notify if it is SO_ERROR that is asked for. Both are ints, in the lower half of what the register holds."""
    return [
        _instruction(_LOAD, _argument(1)),
        _instruction(_EQUAL, _SOL_SOCKET, no=3),
        _instruction(_LOAD, _argument(2)),
        _instruction(_EQUAL, _SO_ERROR, no=1),
        _return(_NOTIFY),
        _return(_ALLOW),
    ]


def _if_placed(placed: range) -> list[bytes]:
    """Notify if the call's descriptor is one of these, else allow."""
    return [
        _instruction(_LOAD, _argument(0)),
        _instruction(_AT_LEAST, placed.start, no=1),
        _instruction(_AT_LEAST, placed.stop, no=1),
        _return(_ALLOW),
        _return(_NOTIFY),
    ]


def _if_udp(result: bytes) -> list[bytes]:
    """Return this if socket(2) is asked for UDP, of IPv4 or IPv6: not for ICMP's datagrams, say. Else allow."""
    return [
        _instruction(_LOAD, _argument(0)),
        _instruction(_EQUAL, _AF_INET, yes=1),
        _instruction(_EQUAL, _AF_INET6, no=6),
        _instruction(_LOAD, _argument(1)),
        _instruction(_AND, _TYPE_MASK),
        _instruction(_EQUAL, _DATAGRAM, no=3),
        _instruction(_LOAD, _argument(2)),
        _instruction(_EQUAL, 0, yes=2),
        _instruction(_EQUAL, _UDP, yes=1),
        _return(_ALLOW),
        result,
    ]


def _if_fast_open(argument: int) -> list[bytes]:
    return [
        _instruction(_LOAD, _argument(argument)),
        _instruction(_ANY_BIT, _MSG_FASTOPEN, no=1),
        _return(_ERRNO | errno.EOPNOTSUPP),
    ]


def _argument(index: int) -> int:
    return 16 + 8 * index


def _return(value: int) -> bytes:
    return _instruction(_RETURN, value)


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
