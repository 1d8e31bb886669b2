"""What programs do with sockets, a case each: `python tests/laptop/sockets.py CASE [ARGUMENT...]`. Ends with 0 if it went as it must.

The cases that need no mesh pass without hairpin too. The standard library alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import itertools
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOST = "inventory"
REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
CASES: dict[str, Callable[..., None]] = {}


def case(function):
    CASES[function.__name__] = function
    return function


def who(connection: socket.socket) -> str:
    """Ask over a connection: who answered."""
    connection.sendall(REQUEST)
    data = b""
    while more := connection.recv(65536):
        data += more
    return json.loads(data.partition(b"\r\n\r\n")[2])["who"]


def exchange(listener: socket.socket, client: socket.socket) -> None:
    """One byte each way between a connection and its other end, which is really there."""
    server, peer = listener.accept()
    with server:
        assert peer[1] == client.getsockname()[1], (peer, client.getsockname())
        client.sendall(b"a")
        assert server.recv(1) == b"a"
        server.sendall(b"b")
        assert client.recv(1) == b"b"


def own_addresses() -> list[str]:
    """The machine's IPv4 addresses other than loopback, from the kernel's own table of routes."""
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    found = {above.split()[-1] for above, line in itertools.pairwise(lines) if "/32 host LOCAL" in line}
    return sorted(address for address in found if not address.startswith("127."))


def failed(function: Callable[[], object]) -> str:
    """The name of a call's error; what it returned, if it had none."""
    try:
        return str(function())
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


@case
def own_port() -> None:
    """A connect to what the program itself listens on stays on the machine, by each of its addresses."""
    for address in ["127.0.0.1", *own_addresses()]:
        with socket.create_server((address, 0)) as listener, socket.create_connection(listener.getsockname()) as client:
            assert client.getpeername() == listener.getsockname()
            exchange(listener, client)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        for address in ["0.0.0.0", "127.0.0.1", "127.0.0.53", *own_addresses()]:
            with socket.create_connection((address, listener.getsockname()[1])) as client:
                exchange(listener, client)


@case
def port_zero() -> None:
    """The kernel chooses; the program reads which, and is found there."""
    ports = set()
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
    for listener in listeners:
        port = listener.getsockname()[1]
        ports.add(port)
        with socket.create_connection(("localhost", port)) as client:
            exchange(listener, client)
    assert len(ports) == len(listeners)
    assert 0 not in ports


@case
def double_bind() -> None:
    """The second of two binds to one port is refused, as it must be for the programs that probe for a free one."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket() as second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert second.connect_ex(first.getsockname()) == 0
        first.accept()[0].close()
        with socket.socket() as third:
            assert failed(lambda: third.bind(first.getsockname())) == "EADDRINUSE"


@case
def fork_after_listen() -> None:
    """A parent listens, its children accept: each of four answers with its own process id."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        children = []
        for _ in range(4):
            if (child := os.fork()) == 0:
                connection, _ = listener.accept()
                connection.sendall(str(os.getpid()).encode())
                os._exit(0)
            children.append(child)
        answers = set()
        for _ in children:
            with socket.create_connection(listener.getsockname()) as client:
                answers.add(int(client.recv(64)))
        assert answers == set(children)
        for child in children:
            os.waitpid(child, 0)


@case
def source_port() -> None:
    """A socket bound to a port of its own calls into the mesh."""
    with socket.socket() as client:
        client.bind(("0.0.0.0", 0))
        port = client.getsockname()[1]
        client.connect((HOST, 80))
        assert client.getsockname()[1] == port
        assert who(client) == HOST


@case
def two_families() -> None:
    """A name that leads to ::1 and 127.0.0.1, where only one of them is listened on: the other is refused, and the next tried."""
    found = {info[4][0] for info in socket.getaddrinfo("localhost", 1, type=socket.SOCK_STREAM)}
    assert "127.0.0.1" in found
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if address not in found:
            continue
        with socket.create_server((address, 0), family=family) as listener:
            port = listener.getsockname()[1]
            other = ("::1", socket.AF_INET6) if family is socket.AF_INET else ("127.0.0.1", socket.AF_INET)
            with socket.socket(other[1]) as refused:
                assert refused.connect_ex((other[0], port)) == errno.ECONNREFUSED
            with socket.create_connection(("localhost", port)) as client:
                assert client.getpeername()[0] == address
                exchange(listener, client)
            asyncio.run(_races(port))
            listener.accept()[0].close()


async def _races(port: int) -> None:
    _, writer = await asyncio.open_connection("localhost", port, happy_eyeballs_delay=0.05)
    writer.close()


@case
def reopened_listener() -> None:
    """A listener that is closed and opened again, twenty times, on one port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    for _ in range(20):
        with socket.socket() as client:
            assert client.connect_ex(address) == errno.ECONNREFUSED
        with socket.create_server(address) as listener, socket.create_connection(address) as client:
            exchange(listener, client)


@case
def thousand_to_the_mesh() -> None:
    """1,000 connections, a request each, fifty at a time: as many answers."""
    answers = asyncio.run(_many(1000, 50))
    assert answers == [HOST] * 1000, {answer: answers.count(answer) for answer in set(answers)}


async def _many(count: int, at_once: int) -> list[str]:
    limit = asyncio.Semaphore(at_once)

    async def one() -> str:
        async with limit:
            try:
                reader, writer = await asyncio.open_connection(HOST, 80)
                writer.write(REQUEST)
                data = await reader.read()
                writer.close()
                return json.loads(data.partition(b"\r\n\r\n")[2])["who"]
            except (OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"

    return list(await asyncio.gather(*(one() for _ in range(count))))


@case
def thousand_at_home() -> None:
    """1,000 connections to a server of the program's own, one after the other, with the server in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:

        def serve() -> None:
            for _ in range(1000):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"x")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        for _ in range(1000):
            with socket.create_connection(listener.getsockname()) as client:
                assert client.recv(1) == b"x"


@case
def event_loop() -> None:
    """While connections are made without blocking, a loop ticks: the call itself returns at once, also to who refuses."""
    addresses = {
        name: socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4] for name in (HOST, "localhost")
    }
    for address in [addresses[HOST]] * 20 + [("127.0.0.1", 1)] * 20:
        with socket.socket() as client:
            client.setblocking(False)
            code = client.connect_ex(address)
            assert code in (0, errno.EINPROGRESS, errno.ECONNREFUSED), errno.errorcode[code]
            if code == errno.EINPROGRESS:
                _, writable, _ = select.select([], [client], [], 20)
                assert writable, "neither connected nor failed"
                code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert code == (errno.ECONNREFUSED if address[1] == 1 else 0), errno.errorcode.get(code)
    asyncio.run(_ticking())


async def _ticking() -> None:
    ticks, over = 0, asyncio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not over.is_set():
            ticks += 1
            await asyncio.sleep(0.001)

    ticker = asyncio.get_running_loop().create_task(tick())
    answers = await _many(200, 20)
    over.set()
    await ticker
    assert answers == [HOST] * 200
    assert ticks > 50, f"the loop ticked {ticks} times during 200 calls"


@case
def while_the_agent_is_frozen(ready: str, frozen: str) -> None:
    """A non-blocking connect returns at once though nobody can say what will come of it. Files say when; see the test."""
    address = socket.getaddrinfo("frontend", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    Path(ready).touch()
    while not Path(frozen).exists():
        time.sleep(0.02)
    started = time.monotonic()
    with socket.socket() as client:
        client.setblocking(False)
        code = client.connect_ex(address)
        assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
    spent = time.monotonic() - started
    assert spent < 3, f"the call took {spent:.1f} s"


@case
def children_and_threads() -> None:
    """Calls from threads at once, from a forked child, and from a shell's child."""

    def call(_: int) -> str:
        with socket.create_connection((HOST, 80)) as client:
            return who(client)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(40))) == [HOST] * 40
    if (child := os.fork()) == 0:
        os._exit(0 if call(0) == HOST else 1)
    assert os.waitpid(child, 0)[1] == 0
    command = f"{sys.executable} {__file__} source_port & wait $!"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    subprocess.run([sys.executable, __file__, "source_port"], check=True, start_new_session=True)


@case
def first_refused(host: str, port: str) -> None:
    """The first connect to what only the agent's policy refuses, on a socket that may wait: refused, as a closed port is."""
    with socket.socket() as client:
        assert failed(lambda: client.connect((host, int(port)))) == "ECONNREFUSED"


@case
def first_refused_without_waiting(host: str, port: str) -> None:
    """The same on a socket that may not wait for the agent's word: connected and closed, as by a sidecar, until that is known."""
    address = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)[0][4]
    ends = [_without_waiting(address) for _ in range(2)]
    until = time.monotonic() + 20
    while ends[-1] != "ECONNREFUSED" and time.monotonic() < until:
        time.sleep(0.05)
        ends.append(_without_waiting(address))
    assert ends[-1] == "ECONNREFUSED", ends
    assert ends[0] in ("ECONNRESET", "b''"), ends
    assert set(ends) <= {"ECONNRESET", "b''", "ECONNREFUSED"}, ends


def _connect_ended(client: socket.socket, address: tuple[str, int]) -> int:
    """The errno of a connect that does not block, once it has ended; 0 if it is connected. The call itself returns at once."""
    client.setblocking(False)
    started = time.monotonic()
    code = client.connect_ex(address)
    assert time.monotonic() - started < 3, "it waited"
    if code == errno.EINPROGRESS:
        assert select.select([], [client], [], 40)[1]
        code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return code


def _without_waiting(address: tuple[str, int]) -> str:
    """How a connection ends that nobody answers, from a non-blocking connect to the other side's word."""
    with socket.socket() as client:
        code = _connect_ended(client, address)
        if code != 0:
            return errno.errorcode[code]
        assert select.select([client], [], [], 20)[0], "neither closed nor refused"
        return failed(lambda: client.recv(1))


@case
def exact_errors(host: str, port: str) -> None:
    """`--connect exact`: the first connect ends as the far one does, on a socket that may wait, one that may not, and in asyncio.

    At HOST:PORT nothing listens; and no agent connects to a link-local address.
    """
    ends = {(host, int(port)): "ECONNREFUSED", ("169.254.169.254", 80): "ECONNREFUSED", (HOST, 80): "0"}
    for address, expected in ends.items():
        found = socket.getaddrinfo(*address, socket.AF_INET, socket.SOCK_STREAM)[0][4]
        assert _without_blocking(found) == expected, address
        with socket.socket() as client:
            assert failed(lambda client=client, found=found: client.connect_ex(found)) in (
                expected,
                str(errno.ECONNREFUSED),
            )
            if expected == "0":
                assert who(client) == HOST
    asyncio.run(_exact_in_a_loop(host, int(port)))


def _without_blocking(address: tuple[str, int]) -> str:
    """How a connect ends that must not wait."""
    with socket.socket() as client:
        code = _connect_ended(client, address)
        return errno.errorcode.get(code, str(code))


async def _exact_in_a_loop(host: str, port: int) -> None:
    assert await _many(20, 20) == [HOST] * 20
    for address in ((host, port), ("169.254.169.254", 81)):
        try:
            await asyncio.open_connection(*address)
        except ConnectionRefusedError:
            continue
        raise AssertionError(address)


@case
def exact_while_no_agent_is_reached(ready: str, frozen: str, told: str) -> None:
    """`--connect exact`, while the agent is frozen, and from then on until it is back. Files say when; see the test."""
    address = socket.getaddrinfo(HOST, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    ways = {"blocking": _connect_blocking, "not blocking": _connect_ended}
    assert [_exact_end(way, address) for way in ways.values()] == [HOST] * 2
    Path(ready).touch()
    while not Path(frozen).exists():
        time.sleep(0.02)
    with ThreadPoolExecutor(len(ways)) as pool:
        started = time.monotonic()
        ends = list(pool.map(lambda way: (_exact_end(way, address), time.monotonic() - started), ways.values()))
    print(json.dumps(dict(zip(ways, ends, strict=True))), flush=True)
    Path(told).touch()
    for way in ways.values():
        until = time.monotonic() + 40
        while (end := _exact_end_or_cut(way, address)) != HOST:
            assert end in ("ENETUNREACH", "ETIMEDOUT", "cut"), end
            assert time.monotonic() < until, "it does not come back"
            time.sleep(0.1)


def _connect_blocking(client: socket.socket, address: tuple[str, int]) -> int:
    return client.connect_ex(address)


def _exact_end(connect: Callable[[socket.socket, tuple[str, int]], int], address: tuple[str, int]) -> str:
    """Who answers, or the name of the connect's error. A call that may not wait does not."""
    with socket.socket() as client:
        code = connect(client, address)
        if code:
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "it is told once"
            return errno.errorcode[code]
        client.setblocking(True)
        return who(client)


def _exact_end_or_cut(connect: Callable[[socket.socket, tuple[str, int]], int], address: tuple[str, int]) -> str:
    """Likewise, while an agent that was frozen may be on for a moment before it ends."""
    try:
        return _exact_end(connect, address)
    except (ConnectionError, json.JSONDecodeError):
        return "cut"


@case
def udp_at_home() -> None:
    """Datagrams to the machine itself always pass: by address, and connected."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        client.sendto(b"one", server.getsockname())
        assert server.recv(10) == b"one"
        client.connect(server.getsockname())
        client.send(b"two")
        assert server.recv(10) == b"two"


@case
def udp_refused(way: str) -> None:
    """A datagram into the mesh is refused at once and in words, not lost; one way to send it as the other."""
    address = (socket.getaddrinfo(HOST, 80, socket.AF_INET)[0][4][0], 5000)
    ways = {
        "sendto": lambda client: client.sendto(b"x", address),
        "connect": lambda client: (client.connect(address), client.send(b"x"), client.recv(1)),
        "sendmsg": lambda client: client.sendmsg([b"x"], [], 0, address),
    }
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        # Neither sent, nor lost in silence until the time is over.
        ended = failed(lambda: ways[way](client))
        assert ended == ("ECONNREFUSED" if way == "connect" else "ENETUNREACH"), ended


@case
def no_network() -> None:
    """A program that calls nobody: pipes, files, Unix sockets, processes."""
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"
    path = f"/tmp/hairpin-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        Path(path).unlink()
        listener.listen()
        assert client.connect_ex(path) == errno.ENOENT
    assert subprocess.run(["sh", "-c", "exit 7"], check=False).returncode == 7


@case
def odd_calls() -> None:
    """Prints how each odd call ends; it is to end the same without hairpin."""
    libc = ctypes.CDLL(None, use_errno=True)

    def raw(fd: int, data: bytes | None, length: int) -> int:
        code = libc.connect(fd, ctypes.c_char_p(data) if data is not None else ctypes.c_void_p(8), length)
        if code < 0:
            raise OSError(ctypes.get_errno(), "")
        return code

    here = b"\x02\x00" + (1).to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.socket() as twice, socket.socket() as fresh, socket.socket(socket.AF_INET6) as six:
            twice.connect(address)
            calls = [
                lambda: twice.connect(address),  # connected already
                lambda: listener.connect(address),  # it listens
                lambda: raw(fresh.fileno(), None, 16),  # no memory there
                lambda: raw(fresh.fileno(), here, 4),  # too short
                lambda: raw(fresh.fileno(), here, 2_000),  # too long
                lambda: raw(fresh.fileno(), b"\x63\x00" + here[2:], 16),  # of no family
                lambda: raw(six.fileno(), here, 16),  # of another family
                lambda: raw(9_999, here, 16),  # no socket
                lambda: raw(0, here, 16),  # no socket, but a file
                lambda: raw(fresh.fileno(), here, 16),  # refused
                lambda: raw(fresh.fileno(), here, 16),  # and again
                lambda: raw(fresh.fileno(), bytes(16), 16),  # AF_UNSPEC: disconnect
                lambda: fresh.connect(address),
                lambda: six.connect(("::ffff:127.0.0.1", address[1])),
                lambda: six.getpeername()[0],
            ]
            for number, call in enumerate(calls):
                print(f"{number}: {failed(call)}", flush=True)


@case
def a_call() -> None:
    """One call into the mesh, for a debugger to run."""
    with socket.create_connection((HOST, 80)) as client:
        print("answered by", who(client), flush=True)


@case
def idle(seconds: str) -> None:
    """A connection that nobody uses for so long, and then does."""
    with socket.create_connection((HOST, 80)) as client:
        client.sendall(REQUEST.replace(b"Connection: close\r\n", b""))
        answer = b""
        while b'"who"' not in answer:  # its head may come alone
            answer += client.recv(65536) or sys.exit("the connection ended")
        print("idle", flush=True)
        time.sleep(float(seconds))
        assert who(client) == HOST
    print("answered", flush=True)


@case
def forever(note: str) -> None:
    """Calls for as long as it lives, as a child of its does; the file has both process ids."""
    child = os.fork()
    if child:
        Path(f"{note}.new").write_text(f"{os.getpid()} {child}")
        Path(f"{note}.new").rename(note)  # whole, for who waits for it
    while True:
        try:
            with socket.create_connection((HOST, 80), timeout=5) as client:
                who(client)
        except (OSError, ValueError):
            time.sleep(0.05)


def main() -> None:
    """The case."""
    CASES[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
