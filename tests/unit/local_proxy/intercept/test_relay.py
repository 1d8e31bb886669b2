"""The relay between two sockets, where one end is gone while the other does not read."""

import errno
import fcntl
import socket
import struct
import sys
import termios
import time

import pytest

from local_proxy.intercept.relay import Relay

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the relay waits by epoll")

MOST = 64 << 20


def connection(room=None):
    """Two connected sockets of TCP, of which the second takes few bytes that nobody reads."""
    with socket.socket() as listener:
        if room:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for each in (one, other):
        each.settimeout(10)
    return one, other


@pytest.fixture
def ends():
    """A client and a server, and the relay between them."""
    client, near = connection()
    far, server = connection(room=1 << 16)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    relay = Relay()
    relay.add(near, far)
    with client, server:
        yield client, server, near, relay
    relay.close()


def fill(sender, near):
    """Send until the relay takes no more, and little after that: what was sent."""
    sent, before = 0, -1
    while sent < MOST:
        if before and before == unread(near):
            return sent
        before = unread(near)
        if not before:
            sender.sendall(bytes(1 << 16))
            sent += 1 << 16
        time.sleep(0.05)
    raise AssertionError("the relay takes everything")


def unread(near):
    room = bytearray(4)
    fcntl.ioctl(near, termios.FIONREAD, room)
    return int.from_bytes(room, sys.byteorder)


def busy(relay, seconds=1.0):
    """The share of a core that the relay's thread takes."""
    clock = time.pthread_getcpuclockid(relay._thread.ident)
    begin = time.clock_gettime(clock)
    time.sleep(seconds)
    return (time.clock_gettime(clock) - begin) / seconds


def read_all(receiver):
    received = 0
    while data := receiver.recv(1 << 20):
        received += len(data)
    return received


def test_nothing_spins_while_an_end_that_is_gone_has_bytes_underway(ends):
    client, _, near, relay = ends
    fill(client, near)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    client.close()
    assert busy(relay) < 0.2


def test_all_bytes_arrive_of_who_has_ended_though_the_other_has_ended_before(ends):
    client, server, near, relay = ends
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    sent = fill(client, near)
    client.shutdown(socket.SHUT_WR)
    assert busy(relay) < 0.2
    assert read_all(server) == sent


def test_who_resets_its_connection_after_it_has_ended_ends_the_others(ends):
    """A client that has sent all and waits for the answer: the server learns that nobody does any more."""
    client, server, _, _ = ends
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert server.recv(100) == b"question"
    assert server.recv(100) == b""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    client.close()
    failure = 0
    deadline = time.monotonic() + 10
    while not failure and time.monotonic() < deadline:
        time.sleep(0.01)
        failure = server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert failure in (errno.ECONNRESET, errno.EPIPE)
