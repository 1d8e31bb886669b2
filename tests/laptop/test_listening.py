"""Servers under the real kernel's seccomp user notification: taken ports are moved, and the program believes in its own."""

import asyncio
import socket
import sys
import textwrap

import pytest

from tests.support import intercepted
from tests.support.intercepted import gateway
from tests.unit.local_proxy.processes import alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")

PREAMBLE = """
import errno, os, socket, sys, time
port = int(sys.argv[1])
def server(host="127.0.0.1", port=port, reuse=True, share=False, only=None, listen=True):
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
    if only is not None:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    made.bind((host, port))
    if listen:
        made.listen()
    return made
def fails(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]
def real(made):
    "What the kernel's table says of a socket."
    inode = str(os.fstat(made.fileno()).st_ino)
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(table).read().splitlines()[1:]:
            if line.split()[9] == inode:
                return int(line.split()[1].rpartition(":")[2], 16)
"""


@pytest.fixture
async def envoy():
    async with gateway() as made:
        yield made


@pytest.fixture
def taken():
    """A port on which a stranger listens, on every address."""
    with socket.create_server(("0.0.0.0", 0)) as stranger:
        yield stranger.getsockname()[1]


async def python(envoy, port, program):
    """What was said to the user, once a Python program has ended well."""
    source = PREAMBLE + textwrap.dedent(program)
    ended = await intercepted.run(sys.executable, "-c", source, str(port), gateway=envoy.port)
    assert ended.code == 0, (ended.output, ended.lines)
    return ended.lines


async def test_a_taken_port_is_moved_and_the_program_believes_in_it(envoy, taken):
    lines = await python(
        envoy,
        taken,
        """
        one = server()
        assert one.getsockname() == ("127.0.0.1", port), one.getsockname()
        assert real(one) != port
        for blocking in (True, False):
            with socket.socket() as caller:
                caller.setblocking(blocking)
                assert caller.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
                accepted, peer = one.accept()
                assert accepted.getsockname() == caller.getpeername() == ("127.0.0.1", port)
                assert peer == caller.getsockname()
        print(real(one))
        """,
    )
    (line,) = lines
    assert f" listens on {taken}, which is taken here: moved to 127.0.0.1:" in line


async def test_strangers_are_reached_until_the_port_is_moved(envoy, taken):
    lines = await python(
        envoy,
        taken,
        """
        socket.create_connection(("127.0.0.1", port), 5)
        one = server()
        ours = socket.create_connection(("127.0.0.1", port), 5)
        one.settimeout(5)
        one.accept()
        one.close()
        ours.close()
        assert fails(socket.create_connection, ("127.0.0.1", port), 5) == "ECONNREFUSED"
        """,
    )
    assert len(lines) == 1


async def test_a_listener_that_is_closed_and_opened_anew_is_where_it_was(envoy, taken):
    lines = await python(
        envoy,
        taken,
        """
        one = server()
        there = real(one)
        one.close()
        again = server()
        assert real(again) == there
        assert again.getsockname()[1] == port
        """,
    )
    assert len(lines) == 1


@pytest.mark.parametrize("kind", ["free", "taken"])
async def test_a_double_bind_within_the_command_stays_in_use(envoy, taken, kind):
    port = taken
    if kind == "free":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    lines = await python(
        envoy,
        port,
        """
        import subprocess
        first = server(listen=False, reuse=False)
        assert fails(server, reuse=False) == "EADDRINUSE", "bound"
        first.listen()
        assert fails(server) == "EADDRINUSE", "listening"
        assert fails(server, "0.0.0.0") == "EADDRINUSE", "any address"
        assert fails(server, "::", only=0) == "EADDRINUSE", "dual stack"
        server("::1").close()
        child = "import socket, sys; s = socket.socket(); sys.exit(s.connect_ex(('127.0.0.1', int(sys.argv[1]))))"
        assert subprocess.run([sys.executable, "-c", child, str(port)]).returncode == 0
        bind = child.replace("s.connect_ex", "s.bind")
        assert subprocess.run([sys.executable, "-c", bind, str(port)], stderr=subprocess.DEVNULL).returncode == 1
        """,
    )
    assert len(lines) == (kind == "taken")


async def test_both_families_and_both_kinds_of_dual_stack_are_moved(envoy, taken):
    await python(
        envoy,
        taken,
        """
        dual = server("::", only=0)
        assert dual.getsockname()[1] == port != real(dual)
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
            with socket.socket(family) as caller:
                caller.connect((host, port))
                accepted, _ = dual.accept()
                assert accepted.getsockname()[1] == caller.getpeername()[1] == port
                assert caller.getpeername()[0] == host
        dual.close()
        four, six = server("0.0.0.0"), server("::", only=1)
        assert real(four) == real(six) != port, "one program, one port"
        """,
    )


async def test_workers_share_a_moved_port(envoy, taken):
    """SO_REUSEPORT, as with gunicorn --reuse-port."""
    lines = await python(
        envoy,
        taken,
        """
        first = server(share=True)
        child = os.fork()
        if not child:
            second = server(share=True)
            os._exit(real(second) != real(first))
        assert os.waitpid(child, 0)[1] == 0
        assert fails(server, share=False) == "EADDRINUSE"
        """,
    )
    assert len(lines) == 1


async def test_a_privileged_port_is_moved(envoy):
    (line,) = await python(
        envoy,
        81,
        """
        one = server()
        assert one.getsockname()[1] == 81 != real(one)
        socket.create_connection(("127.0.0.1", 81), 5)
        one.accept()
        """,
    )
    assert " listens on 81, which needs root here: moved to 127.0.0.1:" in line


async def test_what_needs_no_move_is_the_kernels(envoy):
    lines = await python(
        envoy,
        0,
        """
        any_port = server(port=0)
        assert any_port.getsockname()[1] == real(any_port)
        unbound = socket.socket()
        unbound.listen()
        assert unbound.getsockname()[1] == real(unbound)
        with socket.create_connection(any_port.getsockname(), 5) as own:
            assert own.getpeername() == any_port.getsockname()
        path = f"/tmp/hairpin-test-{os.getpid()}"
        local = socket.socket(socket.AF_UNIX)
        local.bind(path)
        local.listen()
        assert local.getsockname() == path
        os.unlink(path)
        assert fails(server, "192.0.2.1") == "EADDRNOTAVAIL"
        assert fails(any_port.bind, ("127.0.0.1", 0)) == "EINVAL"
        first = socket.socket(type=socket.SOCK_DGRAM)
        first.bind(("127.0.0.1", 0))
        assert fails(socket.socket(type=socket.SOCK_DGRAM).bind, first.getsockname()) == "EADDRINUSE", "UDP"
        source = socket.socket()
        source.bind(("127.0.0.1", 0))
        port = source.getsockname()[1]
        source.connect(any_port.getsockname())
        assert source.getsockname()[1] == port
        """,
    )
    assert lines == []


async def test_fork_after_listen_and_descriptors_that_are_passed(envoy, taken):
    await python(
        envoy,
        taken,
        """
        import subprocess
        one = server()
        if not os.fork():
            accepted, _ = one.accept()
            accepted.sendall(b"%d" % one.getsockname()[1])
            os._exit(0)
        assert socket.create_connection(("127.0.0.1", port), 5).recv(10) == b"%d" % port
        os.wait()
        heir = "import socket; s = socket.socket(fileno=3); print(s.getsockname()[1], flush=True); s.accept()"
        os.dup2(one.fileno(), 3)
        child = subprocess.Popen([sys.executable, "-c", heir], pass_fds=(3,), stdout=subprocess.PIPE)
        one.close()
        assert int(child.stdout.readline()) == port
        socket.create_connection(("127.0.0.1", port), 5)
        assert child.wait() == 0
        """,
    )


async def test_a_listener_that_is_passed_to_another_process_of_the_command_is_there_what_it_was(envoy, taken):
    """SCM_RIGHTS, as prefork servers and hot restarts have it; whoever made it has ended."""
    lines = await python(
        envoy,
        taken,
        """
        heir, giver = socket.socketpair()
        if not os.fork():
            made = server()
            socket.send_fds(giver, [b"."], [made.fileno()])
            os._exit(0)
        _, (descriptor,), _, _ = socket.recv_fds(heir, 1, 1)
        os.wait()
        given = socket.socket(fileno=descriptor)
        assert given.getsockname() == ("127.0.0.1", port) != ("127.0.0.1", real(given))
        with socket.create_connection(("127.0.0.1", port), 5) as caller:
            accepted, peer = given.accept()
            assert (accepted.getsockname(), peer) == (("127.0.0.1", port), caller.getsockname())
        assert fails(server) == "EADDRINUSE", "it is the command's as long as it lives"
        there = real(given)
        given.close()
        assert real(server()) == there
        """,
    )
    assert len(lines) == 1


async def test_a_listen_that_fails_too_late_to_move_is_told(envoy, tmp_path):
    """Both have bound the port with SO_REUSEADDR; the stranger begins to listen first."""
    listens = tmp_path / "listens"
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", 0))
        port = stranger.getsockname()[1]
        program = """
one = server(listen=False)
print(flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.02)
print(fails(one.listen))
"""
        command = (sys.executable, "-c", PREAMBLE + program, str(port), str(listens))
        process = await intercepted.start(*command, gateway=envoy.port)
        await process.stdout.readline()
        stranger.listen()
        listens.touch()
        output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert output == b"EADDRINUSE\n"
    assert f"can't listen on {port}: another process began to" in errors.decode()


async def test_a_debuggers_port_is_not_moved(envoy, taken):
    ended = await intercepted.run(
        *("node", f"--inspect=127.0.0.1:{taken}", "-e", "process.exit(0)"), gateway=envoy.port
    )
    assert "address already in use" in "\n".join(ended.lines)
    assert "moved" not in "\n".join(ended.lines)


async def test_servers_end_with_a_killed_supervisor(envoy, taken):
    """Nothing hangs in bind or listen: the calls fail, and the command is ended."""
    program = """
import threading
def over_and_over():
    while True:
        fails(lambda: server().close())
for _ in range(3):
    threading.Thread(target=over_and_over, daemon=True).start()
print(os.getpid(), flush=True)
time.sleep(60)
"""
    process = await intercepted.start(sys.executable, "-c", PREAMBLE + program, str(taken), gateway=envoy.port)
    pid = int(await intercepted.kill_once_begun(process))
    assert await asyncio.wait_for(process.wait(), 20) == -9
    async with asyncio.timeout(20):
        while alive(pid):
            await asyncio.sleep(0.05)
