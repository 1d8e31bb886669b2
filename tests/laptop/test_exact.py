"""`--connect exact` under the real kernel: a connect ends as the far one does, whether it may wait or not."""

import asyncio
import errno
import sys
import textwrap

import pytest

from tests.support import intercepted
from tests.support.intercepted import Outcome, gateway

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")

ENDS = {
    "ECONNREFUSED": Outcome(403, {"x-hairpin-refused": "policy default forbids it"}),
    "ETIMEDOUT": Outcome(503, {"x-hairpin-failed": "upstream_reset_before_response_started{connection_timeout}"}),
    "EHOSTUNREACH": Outcome(502, {"x-hairpin-refused": "gone.test does not resolve"}),
    "ENETUNREACH": Outcome(0),
}
"""One of each errno."""
PREAMBLE = """
import asyncio, errno, os, select, socket, sys, threading, time
ENDS = {ends}
def waited(host, port=80, family=socket.AF_INET):
    s = socket.socket(family)
    return s, s.connect_ex((host, port))
def unwaited(host, port=80, family=socket.AF_INET, seconds=20):
    s = socket.socket(family)
    s.setblocking(False)
    begin = time.monotonic()
    code = s.connect_ex((host, port))
    assert time.monotonic() - begin < 2, "it waited"
    if code == errno.EINPROGRESS:
        assert select.select([], [s], [], seconds)[1], "neither connected nor failed"
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return s, code
"""


@pytest.fixture
async def envoy(tmp_path):
    async with gateway() as made:
        made.answers = tmp_path / "a.sock"
        for number, outcome in enumerate(ENDS.values(), 1):
            made.outcomes[f"10.9.9.{number}:80"] = outcome
        yield made


async def python(envoy, program, **settings):
    ends = {getattr(errno, name): f"10.9.9.{number}" for number, name in enumerate(ENDS, 1)}
    code = PREAMBLE.replace("{ends}", repr(ends)) + textwrap.dedent(program)
    ended = await intercepted.run(
        sys.executable, "-c", code, gateway=envoy.port, answers=str(envoy.answers), **settings
    )
    assert ended.code == 0, (ended.output, ended.lines)
    return ended


@pytest.mark.parametrize("way", ["waited", "unwaited"])
async def test_connected(envoy, way):
    await python(
        envoy,
        f"""
        for family, host in ((socket.AF_INET, "10.1.2.3"), (socket.AF_INET6, "2001:db8::1"), (socket.AF_INET6, "::ffff:10.1.2.4")):
            s, code = {way}(host, 80, family)
            assert code == 0, errno.errorcode[code]
            assert os.get_blocking(s.fileno()) == ({way} is waited)
            assert [s.connect_ex((host, 80)) for _ in range(2)][1] == errno.EISCONN  # the first may say that it is done
            assert s.getpeername()[:2] == (host, 80), s.getpeername()
            s.setblocking(True)
            s.sendall(b"hello\\n")
            assert s.recv(10) == b"hello\\n"
            s.shutdown(socket.SHUT_WR)
            assert s.recv(10) == b""
        """,
    )
    assert [str(to) for to in envoy.destinations] == ["10.1.2.3:80", "[2001:db8::1]:80", "10.1.2.4:80"]


@pytest.mark.parametrize("way", ["waited", "unwaited"])
async def test_each_failure_has_its_errno_and_one_line(envoy, way):
    ended = await python(
        envoy,
        f"""
        for error, host in ENDS.items():
            for _ in range(2):
                s, code = {way}(host)
                assert code == error, (errno.errorcode[error], errno.errorcode.get(code))
                assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "it is told once"
                try:
                    s.getpeername()
                except OSError as failure:
                    assert failure.errno == errno.ENOTCONN
        """,
    )
    assert len(ended.lines) == len(ENDS), ended.lines
    assert ended.lines[0] == "10.9.9.1:80 is refused: policy default forbids it"
    assert ended.lines[1] == "10.9.9.2:80 can't be connected to: no answer in time"


async def test_a_failed_connect_looks_as_any_to_who_polls(envoy):
    """Events and a second connect as natively: on a socket that was in epoll before, and one that was not; level and edge."""
    await python(
        envoy,
        """
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        def events(address, flags):
            s = socket.socket()
            s.setblocking(False)
            epoll = select.epoll()
            epoll.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | flags)
            epoll.poll(0)
            assert s.connect_ex(address) == errno.EINPROGRESS
            seen = 0
            while not seen & select.EPOLLERR:
                found = epoll.poll(10)
                assert found, "nothing comes"
                seen = found[0][1]
            assert seen & select.EPOLLOUT and seen & select.EPOLLHUP, seen  # for moments it may be these alone
            time.sleep(0.1)
            poll = select.poll()
            poll.register(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
            return poll.poll(0)[0][1], s.connect_ex(address)
        for flags in (0, select.EPOLLET):
            natively = events(bound.getsockname(), flags)
            for error, host in ENDS.items():
                if error == errno.ECONNREFUSED:
                    continue  # known by now, or else as natively
                seen, code = events((host, 80), flags)
                assert (seen, code) == (natively[0], error), (host, seen, natively, errno.errorcode.get(code))
        """,
    )


async def test_a_socket_can_be_used_again_after_a_failure(envoy):
    await python(
        envoy,
        """
        s, code = waited("10.9.9.3")
        assert code == errno.EHOSTUNREACH
        assert s.connect_ex(("10.1.2.3", 80)) == 0
        s.sendall(b"hello\\n")
        assert s.recv(10) == b"hello\\n"
        """,
    )


async def test_an_event_loop_goes_on_while_many_connects_wait(envoy):
    """They do until the loop has gone on for some time, and connects once more: if it stood still, that would never be."""
    last = "10.8.2.1:80"
    envoy.outcomes.update({f"10.8.0.{number}:80": Outcome(after=last) for number in range(100)})
    envoy.outcomes.update({f"10.8.1.{number}:80": Outcome(503, after=last) for number in range(100)})
    await python(
        envoy,
        """
        async def call(host):
            reader, writer = await asyncio.open_connection(host, 80)
            writer.write(b"hello\\n")
            assert await reader.readline() == b"hello\\n"
            writer.close()
            return "ok"
        async def main():
            calls = [asyncio.create_task(call(f"10.8.{kind}.{number}")) for number in range(100) for kind in (0, 1)]
            for _ in range(50):
                await asyncio.sleep(0.01)
            assert not [done for done in calls if done.done()]
            assert await call("10.8.2.1") == "ok"
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert ends[::2] == ["ok"] * 100, ends[:4]
            assert all(isinstance(end, ConnectionRefusedError) for end in ends[1::2]), ends[1]
        asyncio.run(main())
        """,
    )


async def test_who_gives_up_is_gone_and_its_port_is_free_for_others(envoy):
    """Timeouts of the program's own fire, and the closed socket's answer goes to nobody, also if its port is taken anew."""
    envoy.outcomes["10.8.0.1:80"] = Outcome(after="10.8.0.2:80")
    await python(
        envoy,
        """
        s = socket.socket()
        s.settimeout(0.2)
        try:
            s.connect(("10.8.0.1", 80))
        except TimeoutError:
            pass
        else:
            raise AssertionError
        port = s.getsockname()[1]
        s.setblocking(False)
        assert s.connect_ex(("10.8.0.1", 80)) == errno.EALREADY
        s.close()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            listener.listen()
            assert waited("10.8.0.2")[1] == 0, "now the other is answered, too"
            listener.settimeout(2)
            try:
                raise AssertionError(listener.accept())
            except TimeoutError:
                pass
        """,
    )


async def test_happy_eyeballs(envoy):
    envoy.outcomes["[2001:db8::9]:80"] = Outcome(503, after="10.1.2.4:80")
    await python(
        envoy,
        """
        async def main():
            infos = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::9", 80, 0, 0)),
                     (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 80))]
            loop = asyncio.get_running_loop()
            async def both(*_, **__):
                return infos
            loop.getaddrinfo = both
            reader, writer = await asyncio.open_connection("both.test", 80, happy_eyeballs_delay=0.1)
            writer.write(b"hello\\n")
            assert await reader.readline() == b"hello\\n"
            writer.close()
        asyncio.run(main())
        assert waited("10.1.2.4")[1] == 0, "and the other is answered"
        """,
    )


async def test_many_bytes_pass_both_ways_and_a_reset_is_one(envoy):
    await python(
        envoy,
        """
        import struct
        s, code = unwaited("10.1.2.3")
        assert code == 0
        s.setblocking(True)
        line = b"x" * 60000 + b"\\n"
        got = []
        def read():
            while sum(map(len, got)) < 200 * len(line):
                got.append(s.recv(1 << 20))
        thread = threading.Thread(target=read)
        thread.start()
        for _ in range(200):
            s.sendall(line)
        thread.join()
        assert b"".join(got) == line * 200
        """,
    )


async def test_a_connection_that_ends_unexplained_fails_and_does_not_hang(envoy):
    envoy.outcomes["10.8.0.1:80"] = Outcome(0, silent=True)
    await python(
        envoy,
        """
        for way in (waited, unwaited):
            begin = time.monotonic()
            assert way("10.8.0.1")[1] == errno.ENETUNREACH
            assert time.monotonic() - begin < 10
        """,
    )


async def test_a_blocking_connect_heeds_its_timeout(envoy):
    envoy.outcomes["10.8.0.1:80"] = Outcome(seconds=20.0)
    await python(
        envoy,
        """
        import struct
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 300000))
        begin = time.monotonic()
        assert s.connect_ex(("10.8.0.1", 80)) == errno.ETIMEDOUT
        assert time.monotonic() - begin < 15
        """,
    )


async def test_calls_that_wait_end_when_the_supervisor_does(envoy):
    """Killed: ENOSYS for those that block, and a refusal for the others as soon as their SYN is sent again. None hangs."""
    envoy.outcomes["10.8.0.1:80"] = Outcome(seconds=60.0)
    program = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of the guard's, who kills seconds later
        thread = threading.Thread(target=lambda: codes.append(waited("10.8.0.1")[1]))
        codes = []
        s = socket.socket()
        s.setblocking(False)
        assert s.connect_ex(("10.8.0.1", 80)) == errno.EINPROGRESS
        thread.start()
        print("begun", flush=True)
        thread.join()
        print(codes, flush=True)
        assert select.select([], [s], [], 20)[1], "it hangs"
        print("refused", flush=True)
        """
    code = PREAMBLE.replace("{ends}", "{}") + textwrap.dedent(program)
    process = await intercepted.start(sys.executable, "-c", code, gateway=envoy.port, answers=str(envoy.answers))
    begun = await intercepted.kill_once_begun(process)
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert begun == b"begun\n", errors.decode()
    # It is ended besides, perhaps before it has printed the second line.
    assert output.decode().split("\n")[0] == str([errno.ENOSYS]), errors.decode()
