"""What interception costs: per connect, per message of a datagram socket and of a stream, and for a program that makes none.

The gateway is a process that takes connections and closes them; both ways lead to it, so that the difference is the
interception's. Exact connects are answered by it at once, as Envoy would when the far end is connected: what is measured is
the way there and back, not the mesh. slirp4netns (where it is installed) is beside it: another way without root and without
LD_PRELOAD, by a TAP device in a user namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.paths import spread
from hairpin.errors import HairpinError
from local_proxy.intercept.choices import Intercept, UdpPolicy
from local_proxy.intercept.resolver import NO_SUCH_NAME, Meaning
from local_proxy.intercept.strategy import Mesh, interception
from local_proxy.rules import Rules

CONNECTS = 400
"""In a round; the first tenth is not counted."""
MESSAGES = 1000
"""In a round."""
LIMIT_SECONDS = 200e-6
"""What a connect may cost over a direct one, at the median."""
_FAR = "10.1.2.3"  # nobody's here
_TAP_HOST = "10.0.2.2"  # what slirp4netns calls this machine's loopback
_TAP_SECONDS = 20.0
_UNSHARE_SECONDS = 0.3
_GATEWAY = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
kept, told = [], None
while True:
    connection, (host, port) = listener.accept()
    kept.append(connection)
    if len(sys.argv) > 1:  # it says what became of each, as Envoy does
        if told is None:
            told = socket.socket(socket.AF_UNIX)
            told.connect(sys.argv[1])
        source = f"{host}:{port}".encode()
        told.sendall(RECORD + bytes([0xA0 | len(source)]) + source)
    if len(kept) > 100:
        kept.pop(0).close()
"""
# As MessagePack: [tag, [[time, {"answer": {"headers": [{"key": ":status", "value": "200"}]}, "from": ...}]]].
_RECORD = b"\x92\xa1t\x91\x92\x01\x82\xa6answer\x81\xa7headers\x91\x82\xa3key\xa7:status\xa5value\xa3200\xa4from"
_CONNECT = """
import select, socket, sys, time
host, port, count, blocking = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "blocking"
times = []
for _ in range(count):
    with socket.socket() as client:
        client.setblocking(blocking)
        begin = time.perf_counter()
        client.connect_ex((host, port))
        blocking or select.select([], [client], [])
        times.append(time.perf_counter() - begin)
print(sorted(times[count // 10:])[(count - count // 10) // 2])
"""
# Sent and received at once, on this machine: of a datagram each call is reported and let pass, of a stream none is.
_MESSAGES = """
import socket, sys, time
datagrams, count = sys.argv[1] == "datagrams", int(sys.argv[2])
if datagrams:
    receiver, sender = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
else:
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    receiver, _ = listener.accept()
to = (receiver.getsockname(),) if datagrams else ()
begin = time.perf_counter()
for _ in range(count):
    sender.sendmsg([b"hello"], [], 0, *to)
    receiver.recvmsg(100)
print((time.perf_counter() - begin) / count)
"""
# No connection, but calls that the filter sees and lets pass, or none; the time is the process's own, so that others on the
# machine count less.
_QUIET = """
import os, sys, time
calls, numbers = map(int, sys.argv[1:])
def once():
    begin = time.process_time()
    for _ in range(calls):
        os.stat("/"); os.close(os.open("/dev/null", os.O_RDONLY)); os.getppid()
    sum(number * number for number in range(numbers))
    return time.process_time() - begin
print(min(once() for _ in range(15)))  # the machine's own noise only adds
"""
_QUIET_PROGRAMS = {"makes system calls half of its time": ("3000", "70000"), "computes": ("0", "140000")}
_PYTHON = (sys.executable, "-I", "-S", "-c")


async def measure(rounds: int) -> dict[str, Any]:
    """Seconds per connect by each way, and how much longer a program takes that makes none; interleaved."""
    samples: dict[str, list[float]] = {}
    messages: dict[str, list[float]] = {}
    quiet: dict[str, list[float]] = {}
    async with _gateway() as port:
        for _ in range(rounds):
            for kind in ("blocking", "not blocking"):
                near = await _number([*_PYTHON, _CONNECT, "127.0.0.1", str(port), str(CONNECTS), kind])
                far = await _number([*_PYTHON, _CONNECT, _FAR, "80", str(CONNECTS), kind], port)
                samples.setdefault(f"direct, {kind}", []).append(near)
                samples.setdefault(f"intercepted, {kind}", []).append(far)
                samples.setdefault(f"over direct, {kind}", []).append(far - near)
                with tempfile.TemporaryDirectory() as folder:
                    answers = Path(folder) / "answers.sock"
                    async with _gateway(answers) as own:
                        exact = await _number([*_PYTHON, _CONNECT, _FAR, "80", str(CONNECTS), kind], own, answers)
                samples.setdefault(f"exact, {kind}", []).append(exact)
            if tap := await _by_tap([*_PYTHON, _CONNECT, _TAP_HOST, str(port), str(CONNECTS), "blocking"]):
                samples.setdefault("slirp4netns, blocking", []).append(tap)
            for kind in ("datagrams", "stream"):
                command = [*_PYTHON, _MESSAGES, kind, str(MESSAGES)]
                messages.setdefault(f"direct, {kind}", []).append(await _number(command))
                messages.setdefault(f"intercepted, {kind}", []).append(await _number(command, port))
            for name, numbers in _QUIET_PROGRAMS.items():
                command = [*_PYTHON, _QUIET, *numbers]
                alone, under = await _number(command), await _number(command, port)
                quiet.setdefault(name, []).append(under / alone)
    spreads = [{name: spread(times) for name, times in each.items()} for each in (samples, messages, quiet)]
    return {"connect": spreads[0], "messages": spreads[1], "quiet": spreads[2], "tap": "" if tap else _no_tap()}


def text(result: dict[str, Any]) -> str:
    """The numbers as a table, in microseconds."""
    lines = ["", "connect, p50", *_rows(result["connect"])]
    if result["tap"]:
        lines.append(f"  {'slirp4netns, blocking':<30} {result['tap']}")
    lines += ["a sendmsg and a recvmsg on this machine", *_rows(result["messages"])]
    lines.append("a program that calls nobody, under the filter: of its time without")
    lines += [
        f"  {name:<37} {row['median']:.3f} ({row['low']:.3f}–{row['high']:.3f})"
        for name, row in result["quiet"].items()
    ]
    worst = max(row["median"] for name, row in result["connect"].items() if name.startswith("over direct"))
    judged = "within" if worst <= LIMIT_SECONDS else "over"
    lines.append(
        f"a connect costs {worst * 1e6:.0f} µs more at most, {judged} the limit of {LIMIT_SECONDS * 1e6:.0f} µs"
    )
    return "\n".join(lines) + "\n"


def _rows(spreads: dict[str, Any]) -> list[str]:
    return [
        f"  {name:<30} {row['median'] * 1e6:>7.0f} µs ({row['low'] * 1e6:.0f}–{row['high'] * 1e6:.0f})"
        for name, row in spreads.items()
    ]


@contextlib.asynccontextmanager
async def _gateway(answers: Path | None = None) -> AsyncIterator[int]:
    code = f"RECORD = {_RECORD!r}\n{_GATEWAY}"
    told = [] if answers is None else [str(answers)]
    process = await asyncio.create_subprocess_exec(*_PYTHON, code, *told, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def _number(command: list[str], gateway: int | None = None, answers: Path | None = None) -> float:
    """What a command prints, intercepted if there is a gateway to lead it to; exactly if that has answers."""
    if gateway is None:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return _read(output, process.returncode)
    async with interception(Intercept.ON, _mesh(gateway, answers), udp=UdpPolicy.REFUSE, tell=_tell) as way:
        with tempfile.TemporaryDirectory() as folder:
            # The command has our own descriptors, so it is told to write elsewhere.
            output = Path(folder) / "output"
            shell = ["/bin/sh", "-c", 'output=$1; shift; exec "$@" > "$output"', "sh", str(output), *command]
            process = await way.start(shell[0], shell, {"PATH": os.defpath})
            code = await process.wait()
            return _read(output.read_bytes(), code)


async def _by_tap(command: list[str]) -> float | None:
    """What a command prints whose network is slirp4netns; None where there is no such program, or no user namespaces."""
    slirp, unshare = shutil.which("slirp4netns"), shutil.which("unshare")
    if slirp is None or unshare is None:
        return None
    # /sys is still the machine's own, and knows nothing of the namespace's devices.
    wait = 'until grep -q tap0 /proc/net/route; do sleep 0.05; done; exec "$@"'
    process = await asyncio.create_subprocess_exec(
        *(unshare, "--user", "--map-root-user", "--net", "/bin/sh", "-c", wait, "sh", *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.sleep(_UNSHARE_SECONDS)
    network = await asyncio.create_subprocess_exec(
        *(slirp, "--configure", "--mtu=65520", str(process.pid), "tap0"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_TAP_SECONDS):
            output, _ = await process.communicate()
            return _read(output, process.returncode)
    except (TimeoutError, HairpinError):
        return None
    finally:
        for each in (network, process):
            with contextlib.suppress(ProcessLookupError):
                each.kill()
            await each.wait()


def _no_tap() -> str:
    """Why there are no numbers of it."""
    missing = [name for name in ("slirp4netns", "unshare") if shutil.which(name) is None]
    return f"not measured: there is no {missing[0]} here" if missing else "not measured: it can't make its device here"


def _read(output: bytes, code: int | None) -> float:
    if code != 0:
        raise HairpinError(f"bench: a measured program ended with {code}")
    return float(output)


def _mesh(gateway: int, answers: Path | None) -> Mesh:
    async def meaning(_: str) -> Meaning:
        return NO_SUCH_NAME

    async def refusal(*_: str) -> str:
        return ""

    return Mesh(
        gateway=gateway,
        answers=answers,
        http_proxy=1,
        rules=Rules(),
        local_hosts=(),
        meaning=meaning,
        refusal=refusal,
    )


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
