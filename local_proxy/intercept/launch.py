"""Hairpin's end of the launcher: from a command line to a process with our filter, and the descriptor that reports its calls."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import marshal
import os
import resource
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_proxy.descriptors import inherited_descriptors, listeners_passed_on
from local_proxy.intercept import launcher
from local_proxy.intercept.filter import ALWAYS, ARCHITECTURES, Architecture, Call, filter_program, places
from local_proxy.intercept.kernel import Listener, Threads
from local_proxy.intercept.memory import read_memory
from local_proxy.mounts import mounter
from local_proxy.mounts.reasons import CannotMountError, why_not

if TYPE_CHECKING:
    from local_proxy.mounts.plan import Plan

_READY_SECONDS = 20.0


class CannotInterceptError(Exception):
    """Why calls can't be intercepted here, in words for the user."""


class Waiting:
    """A process that waits for what to execute.

    Args:
        process: it.
        channel: to it.
    """

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self._told = False

    async def mount(self, stage: Path, plan: Plan) -> None:
        """Mount what a plan says, for this process and its children alone. All of it or nothing.

        Args:
            stage: an empty folder, which is left empty.
            plan: what to mount.

        Raises:
            CannotMountError: this system does not let it.
        """
        encoded = os.fsencode
        arguments = (
            encoded(stage),
            [encoded(folder) for folder in plan.covered],
            [(encoded(point), is_folder) for point, is_folder in plan.points],
            [(encoded(copy), encoded(place)) for copy, place in plan.copies],
        )
        await _send(self._channel, ("mount", str(Path(mounter.__file__).parent), arguments))
        answer = await _receive(self._channel)
        if answer is None:
            raise CannotMountError("the process that was to become the command ended at once")
        kind, number, failed = answer
        if kind != b"M":
            raise CannotMountError(why_not(number, _step(plan, failed & 0xFF, failed >> 8)))

    async def execute(
        self, program: str, command: Sequence[str], environ: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Have it become the command. Something must answer its calls by now, if they are reported.

        Raises:
            OSError: the program can't be executed; the process has ended.
        """
        own = listeners_passed_on(environ, self._process.pid)
        environment = {os.fsencode(name): os.fsencode(value) for name, value in own.items()}
        frame = ("execute", os.fsencode(program), [os.fsencode(word) for word in command], environment)
        self._told = True
        await _send(self._channel, frame)
        answer = await _receive(self._channel)
        if answer is None:
            return self._process
        await self._process.wait()
        raise OSError(answer[1], os.strerror(answer[1]))

    async def end(self) -> None:
        """End it, if it has not become the command."""
        self._channel.close()
        if not self._told:
            await self._process.wait()


class Launched(Waiting):
    """A process that has the filter, and waits for what to execute.

    Args:
        process: it.
        channel: to it.
        listener: reports its calls.
        threads: its descriptors.
        architecture: of this machine.
        placed: the numbers of its UDP sockets.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        channel: socket.socket,
        listener: Listener,
        threads: Threads,
        architecture: Architecture,
        *,
        placed: range,
    ) -> None:
        super().__init__(process, channel)
        self.placed = placed
        self.listener = listener
        self.threads = threads
        self.architecture = architecture


def architecture() -> Architecture:
    """This machine's.

    Raises:
        CannotInterceptError: it is none that we know.
    """
    if sys.platform != "linux":
        raise CannotInterceptError("only Linux lets an ordinary user answer a program's system calls")
    machine = os.uname().machine
    if machine not in ARCHITECTURES or sys.maxsize < 1 << 32:
        raise CannotInterceptError(f"the system calls of {machine} are not known to hairpin")
    return ARCHITECTURES[machine]


@contextlib.asynccontextmanager
async def waiting() -> AsyncIterator[Waiting]:
    """A process without a filter that waits for what to execute."""
    async with _started() as (process, channel):
        await _send(channel, (0, b""))
        result = Waiting(process, channel)
        try:
            yield result
        finally:
            await result.end()


@contextlib.asynccontextmanager
async def launched(reported: Iterable[Call] = ALWAYS) -> AsyncIterator[Launched]:
    """A process with the filter, in which we can look: all that can be refused has been tried.

    Raises:
        CannotInterceptError: it is refused.
    """
    own = architecture()
    placed = places(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    instructions = filter_program(own, reported, placed)
    async with _started() as (process, channel):
        threads = Threads(own)
        try:
            await _send(channel, (own.seccomp, instructions))
            async with asyncio.timeout(_READY_SECONDS):
                answer = await _receive(channel)
            listener = _listener(answer, process.pid, threads)
        except BaseException:
            threads.close()
            channel.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        result = Launched(process, channel, listener, threads, own, placed=placed)
        try:
            yield result
        finally:
            await result.end()


@contextlib.asynccontextmanager
async def _started() -> AsyncIterator[tuple[asyncio.subprocess.Process, socket.socket]]:
    channel, theirs = socket.socketpair()
    channel.setblocking(False)
    with channel:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                launcher.__file__,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(), *inherited_descriptors()),
            )
        yield process, channel


def _listener(answer: tuple[bytes, int, int] | None, pid: int, threads: Threads) -> Listener:
    if answer is None:
        raise CannotInterceptError("the process that was to become the command ended at once")
    kind, first, second = answer
    if kind == b"F":
        raise CannotInterceptError(_refused(first, launcher.STEPS[second]))
    try:
        descriptor = threads.descriptor(pid, first)
    except OSError as error:
        raise CannotInterceptError(f"a child's descriptors can't be taken (pidfd_getfd: {error.strerror})") from error
    listener = Listener(descriptor)
    try:
        if read_memory(pid, second, len(launcher.PROBE)) == launcher.PROBE:
            return listener
        problem = "other memory was read"
    except OSError as error:
        problem = str(error.strerror)
    listener.close()
    raise CannotInterceptError(f"a child's memory can't be read (process_vm_readv: {problem})")


def _refused(number: int, step: str) -> str:
    match number:
        case errno.EBUSY:
            return "another program supervises this one's system calls already, and the kernel allows one"
        case errno.EINVAL | errno.ENOSYS:
            return f"this kernel can't report system calls ({step}: {os.strerror(number)}; Linux 5.9 can)"
        case _:
            return f"a sandbox around this shell doesn't allow it ({step}: {os.strerror(number)})"


def _step(plan: Plan, step: int, argument: int) -> str:
    about: dict[int, Sequence[Any]] = {mounter.COVER: plan.covered, mounter.SHOW: plan.covered}
    about |= {mounter.POINT: [point for point, _ in plan.points], mounter.COPY: [place for _, place in plan.copies]}
    places = about.get(step, ())
    return f"{mounter.STEPS[step]}{f' ({places[argument]})' if argument < len(places) else ''}"


async def _send(channel: socket.socket, frame: tuple[Any, ...]) -> None:
    data = marshal.dumps(frame)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its answer, or none, says why
        await asyncio.get_running_loop().sock_sendall(channel, struct.pack("=I", len(data)) + data)


async def _receive(channel: socket.socket) -> tuple[bytes, int, int] | None:
    """Its answer; None at the end."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while len(data) < launcher.FRAME.size:
            chunk = await asyncio.get_running_loop().sock_recv(channel, launcher.FRAME.size - len(data))
            if not chunk:
                return None
            data += chunk
        kind, first, second = launcher.FRAME.unpack(data)
        return kind, first, second
    return None
