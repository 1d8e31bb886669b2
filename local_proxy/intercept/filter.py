"""Which system calls the kernel reports to us: a program for its packet filter machine, as bytes. Pure.

The filter sees a call's number and arguments, not what a pointer points to. What is not reported costs nothing that can be
measured (the kernel keeps the answer "always allowed" per number); what is reported costs two changes of process.

| call | reported |
|---|---|
| connect | always |
| sendto, recvfrom | only with an address: streams and connected sockets have none |
| recvmsg | only where asked for: musl's resolver reads answers by it, but so do many programs their streams |
| getpeername | always: it answers with the address that the program connected to |
| bind, listen | where asked for: they are called once per server |
| getsockname | where asked for: it answers with the port that the program believes to be bound to |
| getsockopt | where asked for, and SO_ERROR alone: it answers with a connect's exact error |
| sendmsg, sendto with MSG_FASTOPEN | EOPNOTSUPP, as where fast open is off: it would connect past us |
| io_uring_setup | ENOSYS, as in Docker's default profile: its connects are not seen here |
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, JEQ, JGE, JSET, RET|K
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000  # SECCOMP_RET_*
_X32_BIT = 0x40000000
_MSG_FASTOPEN = 0x20000000
_SOL_SOCKET, _SO_ERROR = 1, 4


class Call(StrEnum):
    """A system call that can be reported."""

    CONNECT = "connect"
    SENDTO = "sendto"
    RECVFROM = "recvfrom"
    RECVMSG = "recvmsg"
    GETPEERNAME = "getpeername"
    GETSOCKNAME = "getsockname"
    BIND = "bind"
    LISTEN = "listen"
    GETSOCKOPT = "getsockopt"


ALWAYS = frozenset({Call.CONNECT, Call.SENDTO, Call.RECVFROM, Call.GETPEERNAME})
"""What interception of connections and names needs."""
LISTENING = frozenset({Call.BIND, Call.LISTEN, Call.GETSOCKNAME})
"""What moving ports needs, beside that."""
EXACT = frozenset({Call.GETSOCKOPT})
"""What exact errors need, beside that."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another architecture whose programs the same kernel runs. Its calls into the network are refused."""

    audit: int
    refused: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Numbers of one architecture (arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h)."""

    audit: int
    """AUDIT_ARCH_* of linux/audit.h."""
    calls: dict[Call, int]
    sendmsg: int
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
            Call.CONNECT: 42,
            Call.SENDTO: 44,
            Call.RECVFROM: 45,
            Call.RECVMSG: 47,
            Call.BIND: 49,
            Call.LISTEN: 50,
            Call.GETSOCKNAME: 51,
            Call.GETPEERNAME: 52,
            Call.GETSOCKOPT: 55,
        },
        sendmsg=46,
        seccomp=317,
        x32=True,
        # i386: socketcall, connect, sendto, io_uring_setup.
        foreign=(Foreign(0x40000003, (102, 362, 369, 425)),),
    ),
    "aarch64": Architecture(
        0xC00000B7,
        {
            Call.BIND: 200,
            Call.LISTEN: 201,
            Call.CONNECT: 203,
            Call.GETSOCKNAME: 204,
            Call.GETPEERNAME: 205,
            Call.SENDTO: 206,
            Call.RECVFROM: 207,
            Call.GETSOCKOPT: 209,
            Call.RECVMSG: 212,
        },
        sendmsg=211,
        seccomp=277,
        # 32-bit arm: connect, sendto, io_uring_setup.
        foreign=(Foreign(0x40000028, (283, 290, 425)),),
    ),
}
"""By `os.uname().machine`."""


def filter_program(architecture: Architecture, reported: Iterable[Call] = ALWAYS) -> bytes:
    """The filter: an array of struct sock_filter.

    Args:
        architecture: of this machine.
        reported: the calls to report, some only with certain arguments; see above.
    """
    reported = frozenset(reported)
    refuse = _return(_ERRNO | errno.ENOSYS)
    program = [_instruction(_LOAD, _ARCHITECTURE), *_foreign(architecture), _instruction(_LOAD, _NUMBER)]
    if architecture.x32:
        program += [_instruction(_AT_LEAST, _X32_BIT, no=1), refuse]
    for call, number in architecture.calls.items():
        if call in reported:
            program += _when(number, _body(call))
    fast_open = [*_if_fast_open(2), _return(_ALLOW)]
    program += _when(architecture.sendmsg, fast_open)
    program += _when(architecture.io_uring_setup, [refuse])
    return b"".join([*program, _return(_ALLOW)])


def _body(call: Call) -> list[bytes]:
    match call:
        case Call.SENDTO:
            return [*_if_fast_open(3), *_if_pointer(4)]
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
