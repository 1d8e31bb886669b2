"""What is asked of a program's sockets, and done to them, by way of a duplicate."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import struct
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from local_proxy.intercept.addresses import Endpoint, IPAddress
from local_proxy.intercept.kernel import cookie
from local_proxy.intercept.machine import Transport

CLOSED, SYN_SENT, SYN_RECEIVED = 7, 2, 3  # net/tcp_states.h
LOOPBACK = "127.0.0.1"
_IPPROTO_MPTCP = 262
_TCP_FASTOPEN_CONNECT = 30
_SO_BINDTOIFINDEX, _SO_NETNS_COOKIE = 62, 71
_COOKIE = struct.Struct("=Q")
_TIME = struct.Struct("@ll")  # struct timeval
_MOST_PEERS = 16384
_INET_SIZE, _INET6_SIZE = 16, 28
# A socket that is bound to an IPv6 address, or speaks nothing else, can't reach an IPv4 address.
_ELSEWHERE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT})


def transport(handle: socket.socket) -> Transport:
    """What a socket speaks; nothing that we know if it is of another network namespace, where our ports are not."""
    if handle.family not in (socket.AF_INET, socket.AF_INET6) or network(handle) != _own_network():
        return Transport.OTHER
    if handle.type == socket.SOCK_STREAM and handle.proto in (socket.IPPROTO_TCP, _IPPROTO_MPTCP):
        return Transport.TCP
    if handle.type == socket.SOCK_DGRAM and handle.proto == socket.IPPROTO_UDP:
        return Transport.UDP
    return Transport.OTHER


def network(handle: socket.socket) -> int:
    """The kernel's own number of a socket's network namespace; 0 before Linux 5.14, which does not tell it."""
    try:
        return int(_COOKIE.unpack(handle.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE.size))[0])
    except OSError:
        return 0


@functools.cache
def _own_network() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return network(probe)


def multipath(handle: socket.socket) -> bool:
    """Whether a stream is of MPTCP; the kernel is asked."""
    return handle.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == _IPPROTO_MPTCP


def tcp_state(handle: socket.socket) -> int | None:
    """A TCP socket's state; None if it is none."""
    try:
        return handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return None


def timeout(handle: socket.socket, which: int) -> float:
    """Seconds of SO_RCVTIMEO or SO_SNDTIMEO; 0: none."""
    seconds, microseconds = _TIME.unpack(handle.getsockopt(socket.SOL_SOCKET, which, _TIME.size))
    return float(seconds + microseconds / 1e6)


def asked(handle: socket.socket) -> socket.socket:
    """The same socket, with its type and protocol as the kernel has them."""
    return socket.socket(fileno=handle.detach())


def held_to_device(handle: socket.socket) -> bool:
    """Whether a socket is bound to a device (SO_BINDTODEVICE), so that it can't reach loopback; unbinds it where that may be."""
    try:
        device = handle.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX)
        if device and device != socket.if_nametoindex("lo"):
            handle.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, 0)
    except PermissionError:  # it takes CAP_NET_RAW to unbind it, and none to bind it
        return True
    except OSError:  # before Linux 5.1, or there is no loopback
        return False
    return False


def connect_here(handle: socket.socket, port: int) -> int:
    """Connect a socket of either family to a port of this machine's loopback: 0 or an errno, EINPROGRESS too."""
    if held_to_device(handle):
        return errno.ENETUNREACH
    if handle.family == socket.AF_INET:
        return handle.connect_ex((LOOPBACK, port))
    if handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        with contextlib.suppress(OSError):  # it is bound
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    error = handle.connect_ex((f"::ffff:{LOOPBACK}", port))
    return handle.connect_ex(("::1", port)) if error in _ELSEWHERE else error


def without_fast_open(handle: socket.socket) -> None:
    """Have a connect send its SYN at once, whatever the program has set."""
    with contextlib.suppress(OSError):
        handle.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 0)


def endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """What Python says of a socket's address, as ours."""
    return Endpoint(_address(name[0]), name[1])


@functools.lru_cache(256)  # nearly always one of loopback's
def _address(text: str) -> IPAddress:
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


class Peers:
    """Whom redirected sockets believe to be connected to, by socket; the latest are remembered."""

    def __init__(self) -> None:
        self._peers: OrderedDict[int, bytes] = OrderedDict()
        self.ports: set[int] = set()
        """Where sockets are redirected to, on loopback."""
        self.moved: set[int] = set()
        """Ports of the command's own to which those that it believes in were moved, on any address of this machine."""

    def __bool__(self) -> bool:
        return bool(self._peers)

    def remember(self, handle: socket.socket, raw: bytes) -> None:
        """A socket was redirected that meant this socket address."""
        size = _INET_SIZE if handle.family == socket.AF_INET else _INET6_SIZE
        number = cookie(handle)
        self._peers.pop(number, None)
        self._peers[number] = raw[:size].ljust(size, b"\0")
        while len(self._peers) > _MOST_PEERS:
            self._peers.popitem(last=False)

    def meant(self, handle: socket.socket) -> bytes | None:
        """The address that a socket meant, if it was redirected once."""
        return self._peers.get(cookie(handle))

    def ours(self, name: object) -> bool:
        """Whether an address, as Python has it, is one where we redirect to."""
        if not isinstance(name, tuple):
            return False
        if name[1] in self.moved:
            return True
        if name[1] not in self.ports:
            return False
        return name[0] in (LOOPBACK, f"::ffff:{LOOPBACK}", "::1")
