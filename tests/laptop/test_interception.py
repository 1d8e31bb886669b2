"""Programs under the real kernel's seccomp user notification, without any capability."""

import asyncio
import errno
import json
import sys
import textwrap

import pytest

from tests.support import intercepted
from tests.support.intercepted import gateway

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")

PREAMBLE = "import errno, os, select, socket, sys, threading, time\n"


@pytest.fixture
async def envoy():
    async with gateway() as made:
        yield made


async def python(envoy, program, **settings):
    """What a Python program printed, once it has ended well."""
    ended = await intercepted.run(
        sys.executable, "-c", PREAMBLE + textwrap.dedent(program), gateway=envoy.port, **settings
    )
    assert ended.code == 0, (ended.output, ended.lines)
    return ended


async def test_curl_reaches_the_gateway_with_its_destination(envoy):
    command = ["curl", "-sS", "--noproxy", "*", "http://10.1.2.3:8080/"]
    ended = await intercepted.run(*command, gateway=envoy.port)
    assert (ended.code, ended.output) == (0, "10.1.2.3:8080 -\n")
    (header,) = envoy.headers
    assert str(header.destination) == "10.1.2.3:8080"
    assert header.source.address.is_loopback
    assert header.source.port > 0


FAMILIES = """
for family, host in ((socket.AF_INET, "10.1.2.3"), (socket.AF_INET6, "2001:db8::1"), (socket.AF_INET6, "::ffff:10.1.2.4")):
    with socket.socket(family) as s:
        s.connect((host, 80))
        assert s.getpeername()[:2] == (host, 80), s.getpeername()
        assert os.get_blocking(s.fileno())
        s.sendall(b"hello\\n")
        assert s.recv(10) == b"hello\\n"
with socket.socket(socket.AF_INET6) as s:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.connect(("2001:db8::2", 80))
"""


async def test_blocking_connects_of_both_families(envoy):
    await python(envoy, FAMILIES)
    assert [str(to) for to in envoy.destinations] == [
        "10.1.2.3:80",
        "[2001:db8::1]:80",
        "10.1.2.4:80",
        "[2001:db8::2]:80",
    ]


async def test_a_connect_that_does_not_block_keeps_its_meaning(envoy):
    """EINPROGRESS or 0, writable, then EISCONN: and one header, however often connect is called."""
    await python(
        envoy,
        """
        s = socket.socket()
        s.setblocking(False)
        poll = select.poll()
        assert s.connect_ex(("10.1.2.3", 80)) in (0, errno.EINPROGRESS)
        poll.register(s, select.POLLOUT)
        assert poll.poll(5000) == [(s.fileno(), select.POLLOUT)]
        assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        codes = [s.connect_ex(("10.1.2.3", 80)) for _ in range(3)]
        assert codes[1:] == [errno.EISCONN] * 2, codes
        assert not os.get_blocking(s.fileno())
        s.send(b"hello\\n")
        poll.modify(s, select.POLLIN)
        assert poll.poll(5000)
        assert s.recv(10) == b"hello\\n"
        """,
    )
    assert len(envoy.headers) == 1


async def test_a_socket_in_epoll_before_its_connect_is_told(envoy):
    await python(
        envoy,
        """
        s = socket.socket()
        s.setblocking(False)
        epoll = select.epoll()
        epoll.register(s, select.EPOLLOUT | select.EPOLLET)
        epoll.poll(0)
        s.connect_ex(("10.1.2.3", 80))
        assert any(events & select.EPOLLOUT for _, events in epoll.poll(5))
        """,
    )


async def test_disconnect_and_connect_again(envoy):
    await python(
        envoy,
        """
        import ctypes
        libc = ctypes.CDLL(None)
        s = socket.socket()
        for _ in range(2):
            s.connect(("10.1.2.3", 80))
            assert libc.connect(s.fileno(), bytes(16), 16) == 0, "AF_UNSPEC"
            try:
                s.getpeername()
            except OSError as error:
                assert error.errno == errno.ENOTCONN
        """,
    )
    assert len(envoy.headers) == 2


async def test_what_is_wrong_with_a_call_is_the_kernels_to_say(envoy):
    await python(
        envoy,
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def connect(fd, address, length):
            assert libc.connect(fd, address, length) == -1
            return errno.errorcode[ctypes.get_errno()]
        tcp, six = socket.socket(), socket.socket(socket.AF_INET6)
        inet = b"\\x02\\x00\\x00\\x50\\x0a\\x01\\x02\\x03" + bytes(8)
        read_end, _ = os.pipe()
        assert connect(tcp.fileno(), inet, 15) == "EINVAL"
        assert connect(tcp.fileno(), inet, 1) == "EINVAL"
        assert connect(tcp.fileno(), None, 16) == "EFAULT"
        assert connect(tcp.fileno(), inet, -1) == "EINVAL"
        assert connect(999, inet, 16) == "EBADF"
        assert connect(read_end, inet, 16) == "ENOTSOCK"
        assert connect(six.fileno(), inet, 16) in ("EINVAL", "EAFNOSUPPORT")
        assert connect(tcp.fileno(), b"\\x0b\\x00" + bytes(14), 16) == "EAFNOSUPPORT"
        """,
    )
    assert envoy.headers == []


async def test_loopback_keeps_its_own_errors(envoy):
    await python(
        envoy,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        s = socket.create_connection(listener.getsockname())
        assert s.getpeername() == listener.getsockname()
        port = listener.getsockname()[1]
        listener.close()
        for host in ("127.0.0.1", "0.0.0.0"):
            assert socket.socket().connect_ex((host, port)) == errno.ECONNREFUSED
        """,
    )
    assert envoy.headers == []


async def test_a_socket_bound_to_a_source_port(envoy):
    await python(
        envoy,
        """
        s = socket.socket()
        s.bind(("0.0.0.0", 0))
        port = s.getsockname()[1]
        s.connect(("10.1.2.3", 80))
        assert s.getsockname()[1] == port
        s.sendall(b"hello\\n")
        assert s.recv(10) == b"hello\\n"
        """,
    )
    assert len(envoy.headers) == 1


async def test_what_the_agent_would_refuse_is_refused_and_said_once(envoy):
    ended = await python(
        envoy,
        """
        codes = {socket.socket().connect_ex(("10.1.2.3", 80)) for _ in range(3)}
        assert codes == {errno.ECONNREFUSED}, codes
        assert socket.socket().connect_ex(("10.1.2.3", 81)) == 0
        """,
        refused={"10.1.2.3:80": "policy default forbids it"},
    )
    assert ended.lines == ["10.1.2.3:80 is refused: policy default forbids it"]


async def test_the_agent_is_not_waited_for_where_that_would_stop_an_event_loop(envoy):
    await python(
        envoy,
        """
        s = socket.socket()
        s.setblocking(False)
        begin = time.monotonic()
        assert s.connect_ex(("10.1.2.3", 80)) in (0, errno.EINPROGRESS)
        assert time.monotonic() - begin < 5, "the answer takes ten seconds"
        """,
        asked_seconds=10,
    )


async def test_one_that_waits_delays_no_other(envoy):
    await python(
        envoy,
        """
        done = []
        def held():
            socket.socket().connect(("10.1.2.3", 80))
            done.append("held")
        thread = threading.Thread(target=held)
        thread.start()
        time.sleep(0.1)
        for _ in range(20):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("10.9.9.9", 80))
        done.append("others")
        thread.join()
        assert done == ["others", "held"], done
        """,
        asked_seconds=3,
    )


async def test_rules_refuse_and_keep_local(envoy):
    ended = await python(
        envoy,
        """
        assert socket.socket().connect_ex(("10.1.2.3", 25)) == errno.ECONNREFUSED
        s = socket.socket()
        s.settimeout(0.1)
        assert s.connect_ex(("192.0.2.1", 80)) != 0, "nobody is there"
        """,
        rules=[["refuse", ":25"], ["local", "192.0.2.0/24"]],
    )
    assert ended.lines == ["10.1.2.3:25 is refused by --refuse :25"]
    assert envoy.headers == []


async def test_udp_is_refused_once_something_is_sent(envoy):
    ended = await python(
        envoy,
        """
        probing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probing.connect(("10.9.9.9", 9))  # as getaddrinfo does
        for family, host in ((socket.AF_INET, "10.1.2.3"), (socket.AF_INET6, "2001:db8::1")):
            s = socket.socket(family, socket.SOCK_DGRAM)
            s.connect((host, 443))
            assert s.getpeername()[:2] == (host, 443)
            s.send(b"hello")
            s.settimeout(10)
            try:
                s.recv(10)
            except ConnectionRefusedError:
                pass
            else:
                raise AssertionError
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", ("10.1.2.4", 8125))
        except OSError as error:
            assert error.errno == errno.ENETUNREACH
        else:
            raise AssertionError
        """,
    )
    assert [line.partition(" is refused")[0] for line in ended.lines] == [
        "UDP to 10.1.2.3:443",
        "UDP to [2001:db8::1]:443",
        "UDP to 10.1.2.4:8125",
    ]


async def test_udp_on_this_machine_passes(envoy):
    await python(
        envoy,
        """
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.sendto(b"hello", server.getsockname())
        data, source = server.recvfrom(10)
        server.sendto(data, source)
        assert client.recvfrom(10) == (b"hello", server.getsockname())
        """,
    )


async def test_children_and_threads(envoy):
    await python(
        envoy,
        """
        import subprocess
        for _ in range(3):
            subprocess.run([sys.executable, "-c", "import socket; socket.create_connection(('10.1.2.3', 80))"], check=True)
        threads = [threading.Thread(target=socket.create_connection, args=(("10.1.2.4", 80),)) for _ in range(20)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        if os.fork() == 0:
            socket.create_connection(("10.1.2.5", 80))
            os._exit(0)
        assert os.wait()[1] == 0
        """,
    )
    assert sorted(str(to.address) for to in envoy.destinations) == ["10.1.2.3"] * 3 + ["10.1.2.4"] * 20 + ["10.1.2.5"]


async def test_a_thousand_connections(envoy):
    await python(
        envoy,
        """
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        kept = []
        for number in range(1000):
            s = socket.create_connection(("10.1.2.3", 80))
            kept.append(s)
            if len(kept) == 200:
                for s in kept: s.close()
                kept.clear()
        """,
    )
    assert len(envoy.headers) == 1000


async def test_a_signal_handler_that_restarts_calls_does_not_break_a_connect(envoy):
    await python(
        envoy,
        """
        import signal
        ticks = []
        signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        for number in range(5):
            assert socket.socket().connect_ex((f"10.1.2.{number}", 80)) == 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert ticks
        """,
        asked_seconds=0.1,
    )
    assert len(envoy.headers) == 5


async def test_a_process_that_cannot_be_looked_into_is_refused(envoy):
    """PR_SET_DUMPABLE: only where no capability helps us."""
    ended = await python(
        envoy,
        """
        import ctypes
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("\\0hairpin-test-%d" % os.getpid())
        listener.listen()
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
        assert socket.socket().connect_ex(("10.1.2.3", 80)) == errno.EACCES
        assert socket.socket(socket.AF_UNIX).connect_ex(listener.getsockname()) == 0
        """,
    )
    assert len(ended.lines) == 1
    assert "lets nobody see where it connects to" in ended.lines[0]
    assert envoy.headers == []


async def test_no_call_hangs_when_the_supervisor_is_killed(envoy):
    """ENOSYS for calls that wait and for later ones; the guard of `hairpin run` ends the command besides."""
    program = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of the guard's, who kills seconds later
        print("begun", flush=True)
        codes = [socket.socket().connect_ex(("10.1.2.3", 80)) for _ in range(2)]
        print(codes, flush=True)
        """
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)]
    process = await intercepted.start(*command, gateway=envoy.port, asked_seconds=60)
    assert await intercepted.kill_once_begun(process) == b"begun\n"
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert output.decode().strip() == str([errno.ENOSYS] * 2)


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        ("exit 7", 7, ""),
        ("kill -TERM $$", 128 + 15, ""),
        ("echo $$; exec sh -c 'echo $$'", 0, None),
        ("trap '' USR1; kill -USR1 $$; echo through", 0, "through\n"),
    ],
)
async def test_the_command_is_the_process_that_was_started(envoy, script, code, output):
    ended = await intercepted.run("sh", "-c", script, gateway=envoy.port)
    assert ended.code == code
    if output is None:
        first, second = ended.output.split()
        assert first == second
    else:
        assert ended.output == output


async def test_the_command_gets_signals_and_environment_as_from_us(envoy):
    """Python ignores SIGPIPE, and sets LC_CTYPE in a C locale: the command must see neither."""
    ended = await intercepted.run(
        "sh", "-c", "grep SigIgn /proc/self/status; env | grep -c LC_CTYPE", gateway=envoy.port, environ={"LC_ALL": "C"}
    )
    ignored = int(ended.output.split()[1], 16)
    assert not ignored & 1 << 12, "SIGPIPE"
    assert ended.output.split()[2] == "0"


async def test_a_command_that_cannot_be_executed_says_so(envoy, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/nowhere/interpreter\n")
    script.chmod(0o755)
    ended = await intercepted.run(str(script), gateway=envoy.port)
    assert ended.code != 0
    assert any("CommandNotFoundError" in line and "its interpreter is missing" in line for line in ended.lines), (
        ended.lines
    )


# Names

NAMES = {
    "inventory": ["10.1.2.3"],
    "inventory.shop": ["10.1.2.3"],
    "both.shop": ["10.1.2.4", "2001:db8::4"],
    "six.shop": ["2001:db8::6"],
    "catalog.shop": "virtual",
    "broken.shop": "fails",
}


async def test_names_of_the_mesh_resolve_and_go_along(envoy):
    command = [
        "curl",
        "-sS",
        "http://inventory/",
        "http://both.shop:8080/",
        "http://six.shop/",
        "http://catalog.shop:81/",
    ]
    ended = await intercepted.run(*command, gateway=envoy.port, names=NAMES)
    assert ended.output.splitlines() == [
        "10.1.2.3:80 inventory",
        "10.1.2.4:8080 both.shop",
        "[2001:db8::6]:80 six.shop",
        "catalog.shop:81 catalog.shop",
    ]


async def test_libcs_resolver(envoy):
    await python(
        envoy,
        """
        def found(name, family=0):
            try:
                return sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, family, socket.SOCK_STREAM)})
            except socket.gaierror as error:
                return error.errno
        assert found("inventory") == ["10.1.2.3"]
        assert found("both.shop") == ["10.1.2.4"]
        assert found("both.shop", socket.AF_INET6) in (socket.EAI_NONAME, socket.EAI_NODATA)
        assert found("six.shop") == ["2001:db8::6"]
        assert found("catalog.shop")[0].startswith("198.18."), found("catalog.shop")
        assert found("nowhere.shop") == socket.EAI_NONAME
        assert found("broken.shop") == socket.EAI_AGAIN
        assert "127.0.0.1" in found("localhost") + found("x.localhost", socket.AF_INET)
        assert socket.gethostbyaddr("10.1.2.3")[0] == "inventory"
        """,
        names=NAMES,
    )


async def test_many_who_ask_the_same_are_one_question(envoy):
    ended = await python(
        envoy,
        """
        threads = [threading.Thread(target=socket.getaddrinfo, args=("inventory", 80)) for _ in range(30)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
        names=NAMES,
        asked=True,
    )
    assert json.loads(ended.lines[-1]) == {"inventory": 1}


QUERY = r"""
def query(name, kind=1, number=7):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0" + bytes([kind]) + b"\0\1"
"""


async def test_resolvers_that_look_at_the_source_of_an_answer(envoy):
    """As musl's and c-ares', which drop an answer that is not the name server's: blocking, polling, connected, over TCP."""
    await python(
        envoy,
        textwrap.dedent(QUERY)
        + textwrap.dedent(r"""
        server = ("192.0.2.53", 53)
        for family, address in ((socket.AF_INET, server), (socket.AF_INET6, ("2001:db8::53", 53, 0, 0))):
            s = socket.socket(family, socket.SOCK_DGRAM)
            s.sendto(query("inventory"), address)
            answer, source = s.recvfrom(512)
            assert source == address and answer[:2] == b"\0\7" and answer.endswith(b"\x0a\1\2\3"), (answer, source)
            s.setblocking(False)
            s.sendto(query("inventory"), address)
            assert select.select([s], [], [], 5)[0]
            assert s.recvfrom(512)[1] == address
            try:
                s.recvfrom(512)
            except BlockingIOError:
                pass
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect(server)
        assert s.getpeername() == server
        s.send(query("inventory"))
        assert s.recvfrom(512)[1] == server
        s = socket.create_connection(server)
        assert s.getpeername() == server
        message = query("inventory")
        s.sendall(len(message).to_bytes(2, "big") + message)
        assert s.recv(2) and s.recv(512).endswith(b"\x0a\1\2\3")
        """),
        names=NAMES,
    )


async def test_other_answers_keep_their_source(envoy):
    await python(
        envoy,
        textwrap.dedent(QUERY)
        + textwrap.dedent("""
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        s.sendto(query("inventory"), ("192.0.2.53", 53))
        assert s.recvfrom(512)[1] == ("192.0.2.53", 53)
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("127.0.0.1", 0))
        other.sendto(b"hello", s.getsockname())
        assert s.recvfrom(512) == (b"hello", other.getsockname())
        """),
        names=NAMES,
    )


async def test_a_name_that_a_rule_refuses_says_so_at_the_connect(envoy):
    ended = await intercepted.run(
        "curl", "-sS", "http://payments.prod/", gateway=envoy.port, rules=[["refuse", "*.prod"]], names=NAMES
    )
    assert ended.code == 7, "couldn't connect"
    assert any("payments.prod:80" in line and "is refused by --refuse *.prod" in line for line in ended.lines), (
        ended.lines
    )
