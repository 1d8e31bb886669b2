"""What programs do with UDP sockets, a case each: `python tests/laptop/datagrams.py CASE`. Ends with 0 if it went as it must.

For interception with `--udp refuse`, unless a case says otherwise. The standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import select
import socket
import struct
import sys
from collections.abc import Callable

CASES: dict[str, Callable[[], None]] = {}
FAMILIES = (socket.AF_INET, socket.AF_INET6)
PLACES = range(960, 1024)
PR_SET_DUMPABLE = 4
libc = ctypes.CDLL(None, use_errno=True)


def case(function):
    CASES[function.__name__] = function
    return function


def udp(family: int = socket.AF_INET) -> socket.socket:
    return socket.socket(family, socket.SOCK_DGRAM)


def ended(call: Callable[[], object]) -> object:
    """What a call returned, or the name of its error."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]


def at(keep: list, data: bytes) -> int:
    """Where these bytes are, for as long as the list is kept."""
    keep.append(ctypes.create_string_buffer(data, len(data)))
    return ctypes.addressof(keep[-1])


def packed(host: str, port: int) -> bytes:
    if ":" in host:
        return struct.pack(
            "=H2sI16sI", socket.AF_INET6, port.to_bytes(2, "big"), 0, socket.inet_pton(socket.AF_INET6, host), 0
        )
    return struct.pack("=H2s4s8x", socket.AF_INET, port.to_bytes(2, "big"), socket.inet_aton(host))


def sendmmsg(s: socket.socket, *messages: tuple[bytes, tuple[str, int] | None]) -> tuple[object, list[int]]:
    """Send each in two parts: what the call returned, or the name of its error, and how many bytes of each it says were sent."""
    keep: list = []
    many = b""
    for data, address in messages:
        name = packed(*address) if address else b""
        half = len(data) // 2
        parts = struct.pack("=QQQQ", at(keep, data[:half]), half, at(keep, data[half:]), len(data) - half)
        many += struct.pack("=QI4xQQQQi4xI4x", at(keep, name) if name else 0, len(name), at(keep, parts), 2, 0, 0, 0, 0)
    vector = ctypes.create_string_buffer(many, len(many))
    returned = libc.sendmmsg(s.fileno(), vector, len(messages), 0)
    sent = [struct.unpack_from("=I", vector.raw, 64 * index + 56)[0] for index in range(len(messages))]
    return (returned if returned >= 0 else errno.errorcode[ctypes.get_errno()]), sent


def received(s: socket.socket, call: str) -> tuple[bytes, tuple[str, int]]:
    """What recvmsg, or recvmmsg, writes of one message in two parts: the bytes, and whose they are."""
    keep: list = []
    parts = struct.pack("=QQQQ", at(keep, bytes(8)), 8, at(keep, bytes(504)), 504)
    header = struct.pack("=QI4xQQQQi4xI4x", at(keep, bytes(28)), 28, at(keep, parts), 2, 0, 0, 0, 0)
    first, second, name = keep[0], keep[1], keep[2]
    written = ctypes.create_string_buffer(header, len(header))
    if call == "recvmsg":
        length = libc.recvmsg(s.fileno(), written, 0)
    else:
        assert libc.recvmmsg(s.fileno(), written, 1, 0, None) == 1, errno.errorcode[ctypes.get_errno()]
        (length,) = struct.unpack_from("=I", written.raw, 56)
    assert length >= 0, errno.errorcode[ctypes.get_errno()]
    (size,) = struct.unpack_from("=I", written.raw, 8)
    (family,) = struct.unpack_from("=H", name.raw)
    assert (family, size) == (s.family, 16 if s.family == socket.AF_INET else 28)
    host = socket.inet_ntop(family, name.raw[4:8] if family == socket.AF_INET else name.raw[8:24])
    return (first.raw + second.raw)[:length], (host, int.from_bytes(name.raw[2:4], "big"))


@case
def refused_by_sendmsg() -> None:
    """In parts, by IPv6, and to an IPv4 address by an IPv6 socket, in either way to write it; a group is no neighbour either."""
    four, six = map(udp, FAMILIES)
    for s, host in ((four, "10.1.2.3"), (six, "2001:db8::1"), (six, "::ffff:10.1.2.4")):
        assert ended(lambda s=s, host=host: s.sendmsg([b"hel", b"lo"], [], 0, (host, 443))) == "ENETUNREACH"
    assert sendmmsg(six, (b"hello", ("10.1.2.5", 443))) == ("ENETUNREACH", [0])
    assert sendmmsg(four, *[(b"hello", ("10.1.2.6", 443))] * 2) == ("ENETUNREACH", [0, 0])
    assert ended(lambda: four.sendmsg([b"x"], [], 0, ("224.0.0.251", 5353))) == "ENETUNREACH"
    assert ended(lambda: four.sendmsg([b"x"])) == "EDESTADDRREQ", "the kernel's word where nobody is named"
    assert libc.sendmsg(four.fileno(), ctypes.c_void_p(8), 0) == -1
    assert ctypes.get_errno() == errno.EFAULT


@case
def refused_beside_others() -> None:
    """One sendmmsg may send to several: what comes before a refused one arrives, and what comes after is not said to be sent."""
    server, s = udp(), udp()
    server.bind(("127.0.0.1", 0))
    server.settimeout(10)
    here, there = server.getsockname(), ("10.1.2.3", 443)
    assert s.sendmsg([b"on", b"e"], [], 0, here) == 3
    assert sendmmsg(s, (b"two", here), (b"three", here)) == (2, [3, 5])
    assert sendmmsg(s, (b"four", here), (b"lost", there), (b"six", here)) == (1, [4, 0, 0])
    assert sendmmsg(s, (b"lost", there), (b"six", here)) == ("ENETUNREACH", [0, 0])
    s.connect(here)
    assert sendmmsg(s, (b"seven", None), (b"lost", there)) == (1, [5, 0])
    assert [server.recv(10) for _ in range(5)] == [b"one", b"two", b"three", b"four", b"seven"]
    server.settimeout(0)
    assert ended(lambda: server.recv(10)) == "EAGAIN"


@case
def kept_local() -> None:
    """To 192.0.2.77, which a rule keeps local, or `--udp pass` does; prints whether the socket had a fence, and has it still."""
    sends = {
        "sendmsg": lambda s, to: s.sendmsg([b"x"], [], 0, to),
        "sendto": lambda s, to: s.sendto(b"x", to),
        "connect": lambda s, to: s.connect(to),
    }
    for family, host in zip(FAMILIES, ("192.0.2.77", "::ffff:192.0.2.77"), strict=True):
        for send in sends.values():
            with udp(family) as s:
                before = s.getsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE)
                outcome = ended(lambda send=send, s=s, host=host: send(s, (host, 9)))
                assert outcome in (None, 1, "ENETUNREACH"), outcome  # a machine may have no network
                print(before, s.getsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE))


@case
def as_asked_for() -> None:
    """A socket has what socket(2) was asked for, and what is no UDP is left alone."""
    for family in FAMILIES:
        for kind, protocol, blocks in (
            (socket.SOCK_DGRAM, 0, True),
            (socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 17, False),
        ):
            with socket.socket(family, kind, protocol) as s:
                assert s.fileno() in PLACES
                assert os.get_blocking(s.fileno()) is blocks
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == socket.IPPROTO_UDP
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == family
                assert s.getsockname()[1] == 0
                s.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    for kind, closes in ((socket.SOCK_DGRAM, False), (socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, True)):
        number = libc.socket(socket.AF_INET, kind, 0)
        assert bool(fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC) is closes
        os.close(number)
    for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM)):
        with socket.socket(family, kind) as s:
            assert s.fileno() < PLACES.start
    wrong = (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_TCP)
    assert ended(lambda: socket.socket(*wrong)) == "EPROTONOSUPPORT"


@case
def more_than_places() -> None:
    """What finds no place gets an ordinary number; the same of a process that has very many descriptors."""
    kept = [udp() for _ in range(len(PLACES) + 6)]
    numbers = [s.fileno() for s in kept]
    assert set(numbers) > set(PLACES)
    assert sorted(set(numbers)) == sorted(numbers)
    fenced(kept[-1])
    for s in kept:
        s.close()
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, most))
        files = [os.dup(0) for _ in range(PLACES.stop)]
        with udp() as s:
            assert s.fileno() == max(files) + 1, "none of the program's files is replaced"
            fenced(s)
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))


def fenced(s: socket.socket) -> None:
    """The kernel refuses what this socket sends by calls that are not reported."""
    hosts = ["10.1.2.3"] if s.family == socket.AF_INET else ["::ffff:10.1.2.3", "2001:db8::1"]
    for host in hosts:
        assert ended(lambda host=host: s.sendmsg([b"x"], [], 0, (host, 443))) == "ENETUNREACH", host


@case
def out_of_place() -> None:
    """A duplicate, a socket that was passed, of a process that has lowered its limit, and of one that nobody may look into."""
    for family in FAMILIES:
        with udp(family) as s:
            with socket.socket(fileno=os.dup(s.fileno())) as low:
                assert low.fileno() < PLACES.start
                fenced(low)
            left, right = socket.socketpair()
            socket.send_fds(left, [b"x"], [s.fileno()])
            with socket.socket(fileno=socket.recv_fds(right, 1, 1)[1][0]) as passed:
                assert passed.fileno() < PLACES.start
                fenced(passed)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    for family in FAMILIES:
        with udp(family) as s:
            assert s.fileno() < 200
            fenced(s)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    for family in FAMILIES:
        with udp(family) as s:
            fenced(s)


@case
def at_home() -> None:
    """Datagrams to the machine itself, by all calls, from sockets that the kernel would refuse others."""
    for family, host in zip(FAMILIES, ("127.0.0.1", "::1"), strict=True):
        with udp(family) as server, udp(family) as s, socket.socket(fileno=os.dup(s.fileno())) as low:
            server.bind((host, 0))
            server.settimeout(10)
            there = server.getsockname()
            for number, send in enumerate((s.sendto, low.sendto)):
                send(b"%d" % number, there)
                data, source = server.recvfrom(10)
                assert data == b"%d" % number
                server.sendmsg([data], [], 0, source)
                assert s.recvmsg(10)[::3] == (data, there)
            low.sendmsg([b"x"], [], 0, there)
            assert server.recvmsg(10)[0] == b"x"


def question(name: str, number: int = 7) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


@case
def names_by_messages() -> None:
    """Questions to name servers, whose answers are read by recvmsg, as musl does since 1.2.4, and recvmmsg; the source is theirs."""
    data = question("inventory")
    for family, server in zip(FAMILIES, (("192.0.2.53", 53), ("2001:db8::53", 53)), strict=True):
        s = udp(family)
        sends = (
            lambda s=s, server=server: s.sendto(data, server),
            lambda s=s, server=server: s.sendmsg([data[:9], data[9:]], [], 0, server),
            lambda s=s, server=server: sendmmsg(s, (data, server))[1][0],
        )
        for send in sends:
            for call in ("recvmsg", "recvmmsg"):
                for blocks in (True, False):
                    s.setblocking(blocks)
                    assert send() == len(data)
                    if not blocks:
                        assert select.select([s], [], [], 5)[0]
                    answer, source = received(s, call)
                    assert source == server
                    assert answer[:2] == data[:2]
                    assert answer.endswith(b"\x0a\1\2\3"), answer


if __name__ == "__main__":
    CASES[sys.argv[1]]()
