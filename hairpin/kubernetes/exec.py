"""A command in a container, through the API server: what `kubectl exec` does, for this program's own use.

One WebSocket to `pods/NAME/exec` (v5.channel.k8s.io, or v4 of API servers before 1.29). The first byte of a message names its
channel: 1 is the command's standard output, 2 its standard error, 3 carries one `Status` object when it has ended.
No standard input is asked for, so the two protocols don't differ for us: v5 adds a way to close it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hairpin.errors import HairpinError, UnavailableError
from hairpin.kubernetes.api import Api
from hairpin.kubernetes.kinds import PODS

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_SECONDS = 30.0
_MOST_ERROR = 64 * 1024
"""Bytes of standard error that are kept."""
_NOT_STARTED = (126, 127)
"""What a shell, and by its example a container runtime, gives for a program that can't be run or is not there."""


class NotStartedError(HairpinError):
    """The container runtime could not start the command: the image has no such program, say."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has run."""

    code: int
    output: bytes
    error: bytes


async def run_in_container(
    api: Api,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    most: int,
    seconds: float = _SECONDS,
) -> Ran:
    """Run a command to its end, without standard input or terminal.

    Args:
        api: the API server.
        namespace: the pod's.
        pod: its name.
        container: which of its containers.
        command: the program, looked up in the container's PATH, and its arguments.
        most: bytes of standard output.
        seconds: how long it may take.

    Raises:
        NotStartedError: it could not be started.
        ApiError: the API server refuses: `ApiForbiddenError` if we may not.
        UnavailableError: the connection broke off, or it took too long.
        HairpinError: it wrote more than `most`.
    """
    # aiohttp takes repeated parameters as a list of pairs.
    query = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", word) for word in command)]
    path = PODS.path(namespace, pod, "exec")
    reading = Reading(most, f"{namespace}/{pod}")
    try:
        async with asyncio.timeout(seconds), api.websocket(path, query=query, protocols=PROTOCOLS) as socket:
            async for message in socket:
                data = message.data
                if isinstance(data, str):
                    data = data.encode()
                if isinstance(data, bytes) and reading.take(data):
                    break
    except TimeoutError as error:
        raise UnavailableError(
            f"a command in pod {namespace}/{pod} did not end within {seconds:.0f} s: {command[0]}"
        ) from error
    return reading.result()


@dataclass(slots=True)
class Reading:
    """What came, put together. Pure.

    Args:
        most: bytes of standard output.
        pod: for messages.
    """

    most: int
    pod: str
    output: bytearray = field(default_factory=bytearray)
    error: bytearray = field(default_factory=bytearray)
    status: dict[str, Any] | None = None

    def take(self, message: bytes) -> bool:
        """Take a message; whether it was the last.

        Raises:
            HairpinError: it is too much, or no message of the protocol.
        """
        channel, data = message[:1], message[1:]
        match channel:
            case b"\x01":
                if len(self.output) + len(data) > self.most:
                    raise HairpinError(f"pod {self.pod} has more to tell than {self.most} bytes")
                self.output += data
            case b"\x02":
                self.error += data[: max(0, _MOST_ERROR - len(self.error))]
            case b"\x03":
                self.status = _status(data)
                return True
        return False

    def result(self) -> Ran:
        """What the command left.

        Raises:
            NotStartedError: it never ran.
            UnavailableError: nothing says how it ended.
        """
        if self.status is None:
            raise UnavailableError(f"the connection to pod {self.pod} broke off before the command had ended")
        code = exit_code(self.status)
        if code is None:
            raise NotStartedError(
                f"pod {self.pod} could not run the command: {self.status.get('message') or 'no reason given'}"
            )
        return Ran(code, bytes(self.output), bytes(self.error))


def exit_code(status: dict[str, Any]) -> int | None:
    """The exit code that a `Status` tells; None if the command was not started."""
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        for cause in (status.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
                return int(cause["message"])
    return None


def not_found(ran: Ran) -> bool:
    """Whether the program was missing: some runtimes tell that by an exit code."""
    return ran.code in _NOT_STARTED and not ran.output


def _status(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"status": "Failure", "message": data.decode(errors="replace")}
