"""The TCP sockets that listen on this machine, asked of the kernel: nobody is connected to.

Linux is asked by netlink (sock_diag(7)) for those that listen and no others, which takes some hundredths of a
millisecond; /proc/net/tcp, where that is not to be had, takes milliseconds, since the kernel walks through its whole
table of connections to write it. Elsewhere psutil asks each process.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_LINUX: bool = sys.platform == "linux"
_LISTEN = "0A"
_TCP_LISTEN = 10
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20  # linux/netlink.h, linux/sock_diag.h
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_IPV4_WORDS = 1


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that listens, as the kernel has it."""

    host: str
    port: int
    inode: int = 0
    """Names the socket for as long as it lives; 0 where the system does not tell."""


def listening_sockets() -> list[ListeningSocket]:
    """Every TCP socket of this network namespace that listens (on macOS: of this user's processes)."""
    if _LINUX:
        try:
            return [*_ask_kernel(socket.AF_INET), *_ask_kernel(socket.AF_INET6)]
        except OSError:  # a kernel without it, or a sandbox that forbids it
            return [*_read_table("/proc/net/tcp"), *_read_table("/proc/net/tcp6")]
    return [found for sockets in _ask_psutil(psutil.pids()).values() for found in sockets]


def sockets_of(
    pids: Iterable[int], listening: Iterable[ListeningSocket] | None = None
) -> dict[int, list[ListeningSocket]]:
    """The listening sockets of some processes; those that have ended or belong to someone else count for none.

    In the order of their descriptors, which is that of their opening as long as none was closed before. (The numbers of
    inodes tell nothing of that: each CPU gives them out from a range of its own.)

    Args:
        pids: the processes.
        listening: what `listening_sockets` has just returned, to save asking again.
    """
    if not _LINUX:
        return _ask_psutil(pids)
    table = {found.inode: found for found in (listening_sockets() if listening is None else listening)}
    if not table:
        return {}
    return {pid: [table[inode] for inode in dict.fromkeys(inodes_of(pid)) if inode in table] for pid in pids}


def loopback_of(host: str) -> str:
    """Where to connect to, for an address as it is listened on."""
    match host:
        case "0.0.0.0":  # noqa: S104 - compared with, not bound
            return "127.0.0.1"
        case "::":
            return "::1"
        case _:
            return host


def _ask_kernel(family: int) -> list[ListeningSocket]:
    # linux/inet_diag.h: inet_diag_req_v2, answered by messages that begin with inet_diag_msg.
    request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0)
    found: list[ListeningSocket] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)
        kernel.send(header + request)
        while True:
            answer = memoryview(kernel.recv(1 << 16))
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise OSError("sock_diag is refused")
                found.append(_diagnosed(answer[16:length]))
                answer = answer[(length + 3) & ~3 :]


def _diagnosed(message: memoryview) -> ListeningSocket:
    family, port, address, inode = struct.unpack_from("=B3x2s2x16s44xI", message)
    if family == socket.AF_INET:
        return ListeningSocket(socket.inet_ntop(family, address[:4]), int.from_bytes(port, "big"), inode)
    host = ipaddress.IPv6Address(address)
    return ListeningSocket(str(host.ipv4_mapped or host), int.from_bytes(port, "big"), inode)


def _read_table(path: str) -> Iterator[ListeningSocket]:
    # proc_pid_net(5): sl, local_address, rem_address, st, tx:rx, tr:when, retrnsmt, uid, timeout, inode.
    with contextlib.suppress(OSError), open(path, encoding="ascii") as table:  # noqa: PTH123 - read often
        next(table, None)
        for line in table:
            columns = line.split()
            if columns[3] != _LISTEN:
                return
            host, _, port = columns[1].partition(":")
            yield ListeningSocket(_address(host), int(port, 16), int(columns[9]))


def _address(digits: str) -> str:
    # Words of 32 bits, each in the host's byte order.
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(words) == _IPV4_WORDS:
        return str(ipaddress.IPv4Address(packed))
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def inodes_of(pid: int) -> Iterator[int]:
    """The sockets of a process, whatever they are for; none if it has ended or is someone else's. Linux only."""
    with contextlib.suppress(OSError):  # it has ended, or is someone else's
        for descriptor in sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name)):
            with contextlib.suppress(OSError):  # closed meanwhile
                if found := _SOCKET.match(str(descriptor.readlink())):
                    yield int(found[1])


def _ask_psutil(pids: Iterable[int]) -> dict[int, list[ListeningSocket]]:
    found: dict[int, list[ListeningSocket]] = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            connections = psutil.Process(pid).net_connections(kind="tcp")
            found[pid] = [
                ListeningSocket(connection.laddr.ip, connection.laddr.port)
                for connection in connections
                if connection.status == psutil.CONN_LISTEN and connection.laddr
            ]
    return found


def has_ipv6_loopback() -> bool:
    """Whether ::1 is there: with IPv6 switched off on `lo` it is not, though :: can still be listened on."""
    if not _LINUX:
        return True
    with contextlib.suppress(OSError):
        return "00000000000000000000000000000001 " in Path("/proc/net/if_inet6").read_text(encoding="ascii")
    return False
