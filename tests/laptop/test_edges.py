"""Edges of interception under the real kernel: few descriptors, other namespaces, foreign system calls, sockets used anew."""

import contextlib
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from local_proxy.intercept.launch import waiting
from local_proxy.mounts.plan import Plan
from local_proxy.mounts.reasons import CannotMountError
from tests.support import intercepted
from tests.support.intercepted import Gateway, Outcome, gateway

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")

PREAMBLE = "import errno, os, select, socket, struct, sys, threading, time\n"


@pytest.fixture
async def envoy(tmp_path):
    async with gateway() as made:
        made.answers = tmp_path / "a.sock"
        yield made


async def python(envoy, program, *, exact=False, before=(), **settings):
    """What a Python program printed, once it has ended well."""
    code = PREAMBLE + textwrap.dedent(program)
    if exact:
        settings["answers"] = str(envoy.answers)
    else:
        envoy.answers = None
    ended = await intercepted.run(*before, sys.executable, "-c", code, gateway=envoy.port, **settings)
    assert ended.code == 0, (ended.output, ended.lines)
    return ended


CONNECTS = """
import resource
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 128, "the command keeps its own limit"
kept = []
for _ in range(118):
    s = socket.socket()
    s.setblocking(False)
    kept.append((s, s.connect_ex(("10.1.2.3", 80))))
"""


async def test_hairpins_own_descriptors_do_not_run_out(envoy):
    """Each connection that was made without blocking takes two of them."""
    await python(
        envoy,
        CONNECTS
        + """
for s, code in kept:
    assert code == errno.EINPROGRESS, errno.errorcode[code]
    assert select.select([], [s], [], 20)[1]
    assert not s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
""",
        exact=True,
        descriptors=[128, 4096],
    )
    assert len(envoy.headers) == 118


async def test_where_they_do_no_call_goes_past_the_mesh(envoy):
    """And those that were connected stay so."""
    ended = await python(
        envoy,
        CONNECTS
        + """
codes = [code for _, code in kept]
assert set(codes) == {errno.EINPROGRESS, errno.ENOBUFS}, set(codes)
connected = 0
for s, code in kept:
    if code == errno.EINPROGRESS:
        assert select.select([], [s], [], 20)[1], "neither connected nor failed"
        error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert error in (0, errno.ECONNREFUSED), errno.errorcode[error]
        connected += not error
assert connected > 10, connected
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.1.2.3", 99))
except OSError as error:
    assert error.errno in (errno.ENOBUFS, errno.ENETUNREACH), error
else:
    raise AssertionError("it went past us")
""",
        exact=True,
        descriptors=[128, 128],
    )
    assert sum("no descriptors left" in line for line in ended.lines) == 1, ended.lines


async def test_a_socket_that_was_disconnected_and_waits_anew_is_not_refused_by_the_first_answer(envoy):
    envoy.outcomes["10.9.9.1:80"] = Outcome(503, {"x-hairpin-failed": "connection_timeout"}, seconds=0.5)
    envoy.outcomes["10.9.9.2:80"] = Outcome(seconds=1.5)
    await python(
        envoy,
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        s = socket.socket()
        s.setblocking(False)
        assert s.connect_ex(("10.9.9.1", 80)) == errno.EINPROGRESS
        assert libc.connect(s.fileno(), bytes(16), 16) == 0
        assert s.connect_ex(("10.9.9.2", 80)) == errno.EINPROGRESS
        assert select.select([], [s], [], 20)[1]
        assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        s.sendall(b"hello\\n")
        assert select.select([s], [], [], 20)[0]
        assert s.recv(10) == b"hello\\n"
        """,
        exact=True,
    )


async def test_another_network_namespace_has_its_own_errors(envoy):
    await python(
        envoy,
        """
        import ctypes, fcntl
        assert ctypes.CDLL(None).unshare(0x50000000) == 0  # CLONE_NEWUSER, CLONE_NEWNET
        with socket.socket() as s:
            fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
            code = s.connect_ex(("10.1.2.3", 80))
        assert code == errno.ENETUNREACH, errno.errorcode[code]
        """,
    )
    assert not envoy.headers


UNANSWERED = """
import ctypes
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"x", ("10.0.0.1", 53))  # no question, and so it has no answer
room, size = ctypes.create_string_buffer(16), ctypes.c_int(16)
libc, buffer = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(100)
def receive():
    begin = time.monotonic()
    got = libc.recvfrom(s.fileno(), buffer, 100, 0, room, ctypes.byref(size))
    return got, ctypes.get_errno() if got < 0 else 0, time.monotonic() - begin
"""


async def test_a_receive_that_is_held_heeds_its_timeout(envoy):
    await python(
        envoy,
        UNANSWERED
        + """
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 300_000))
got, error, seconds = receive()
assert (got, error) == (-1, errno.EAGAIN), (got, error)
assert 0.3 <= seconds < 20, seconds
""",
    )


async def test_a_receive_that_is_held_takes_nothing_once_another_program_is_in_its_place(envoy):
    """Another thread executes a program: the thread that waits is gone, and its ID is the program's."""
    ended = await python(
        envoy,
        UNANSWERED
        + """
port = s.getsockname()[1]
again = '''
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.send(b"y")
time.sleep(0.5)
'''
def execute():
    time.sleep(0.3)
    os.execv(sys.executable, [sys.executable, "-c", again, str(port)])
threading.Thread(target=execute).start()
receive()
""",
    )
    assert ended.lines == [], "it was tried to write to the program's memory"


async def test_ctrl_c_before_the_command_has_begun_leaves_no_word(capfd):
    async with waiting() as process:
        with contextlib.suppress(CannotMountError):
            await process.mount(Path("/"), Plan())  # whatever it answers: it has begun to wait
        os.kill(process._process.pid, signal.SIGINT)
        assert await process._process.wait() == -signal.SIGINT
    assert capfd.readouterr().err == ""


async def test_a_socket_that_is_bound_to_a_device_fails_at_once():
    devices = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not devices:
        pytest.skip("this machine has no network device but loopback")
    async with gateway() as envoy:
        await python(
            envoy,
            f"""
            for kind, port in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 53)):
                s = socket.socket(socket.AF_INET, kind)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, {devices[0]!r}.encode())
                s.setblocking(False)
                begin = time.monotonic()
                code = s.connect_ex(("10.1.2.3", port))
                assert code == errno.ENETUNREACH, errno.errorcode.get(code)
                assert time.monotonic() - begin < 10
            try:
                s.sendto(b"question", ("10.1.2.3", 53))
            except OSError as error:
                assert error.errno == errno.ENETUNREACH, error
            else:
                raise AssertionError("it was lost")
            """,
        )
        assert not envoy.headers


async def test_an_event_loop_does_not_stand_still_where_the_gateway_does():
    """Its queue is full: a process that is frozen, say."""
    with socket.socket() as frozen:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen(0)
        with socket.create_connection(frozen.getsockname()):
            await python(
                Gateway(port=frozen.getsockname()[1]),
                """
                s = socket.socket()
                s.setblocking(False)
                begin = time.monotonic()
                code = s.connect_ex(("10.1.2.3", 80))
                assert code == errno.ETIMEDOUT, errno.errorcode.get(code)
                assert time.monotonic() - begin < 10
                """,
            )


@pytest.mark.parametrize("exact", [False, True], ids=["at-once", "exact"])
async def test_multipath_tcp(envoy, exact):
    """Go's `SetMultipathTCP`, `mptcpize run`. Without blocking its connects are not exact."""
    await python(
        envoy,
        """
        for blocking in (True, False):
            try:
                s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
            except OSError as error:
                assert error.errno in (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT), error  # a kernel without it
                continue
            s.setblocking(blocking)
            assert s.connect_ex(("10.1.2.3", 80)) in (0, errno.EINPROGRESS)
            assert select.select([], [s], [], 10)[1], "never connected"
            assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            s.setblocking(True)
            s.sendall(b"hello\\n")
            assert s.recv(10) == b"hello\\n"
        """,
        exact=exact,
    )
