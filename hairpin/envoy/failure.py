"""From what Envoy wrote to stderr to what a user should read. Pure, except for asking who holds a port."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
from collections.abc import Iterable

from hairpin.errors import HairpinError, UnavailableError

LOG_FORMAT = "[%l][%n] %v"
"""For `--log-format`, with `--log-format-escaped`: level, logger, message, one line each. `parse_line` reads it."""

_LINE = re.compile(r"\[(trace|debug|info|warning|error|critical)\]\[[^\]]*\] (.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
_WRAPPERS = (
    re.compile(r"error initializing configuration '[^']*': (.*)", re.DOTALL),
    re.compile(r"error `(.*)` initializing config '.*", re.DOTALL),
)
# Envoy quotes the whole configuration in two kinds of errors. It is long, and may contain keys.
_BEFORE_DUMP = re.compile(r"(Unable to parse JSON as proto \(.*?\)): [{\[].*", re.DOTALL)
_AFTER_DUMP = re.compile(r"(?:.*\n|goo\.gle/debug.*)\s*:? ?(Proto constraint validation failed \(.*)", re.DOTALL)
_UNKNOWN_FIELD = re.compile(
    r"Protobuf message \(type \S+ reason (?:INVALID_ARGUMENT: )?(.*)\) has unknown fields", re.DOTALL
)
_CONSTRAINT = re.compile(r"Proto constraint validation failed \((.*)\)", re.DOTALL)
_CANNOT_BIND = re.compile(r"cannot bind '([^']*)': (.*)")
_MAX_LENGTH = 600
_LEVELS = {"critical": logging.ERROR, "error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}
_NOISE = ("no configured limit to the number of allowed active downstream connections", "caught ENVOY_SIGTERM")
"""Warnings of Envoy's that say nothing to the user of a managed one."""


class RefusedError(HairpinError):
    """Envoy does not take a configuration; `reason` is its own."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what + ': ' if what else ''}Envoy refuses the configuration: {reason}")
        self.reason = reason


def parse_line(line: str) -> tuple[str, str]:
    """The level and the message of a line of Envoy's log; what has no level repeats another line, and is `debug`."""
    found = _LINE.fullmatch(line)
    if not found:
        return "debug", line
    # Bytes beyond ASCII are escaped one by one.
    message = _ESCAPE.sub(lambda m: _unescaped(m[1]), found[2])
    with contextlib.suppress(UnicodeError):
        message = message.encode("latin-1").decode()
    return found[1], message


def log_record(line: str) -> tuple[int, str]:
    """A line of Envoy's log for Python's: the level, DEBUG for what says nothing to users, and the message."""
    level, message = parse_line(line)
    noise = any(part in message for part in _NOISE)
    return logging.DEBUG if noise else _LEVELS.get(level, logging.DEBUG), shortened(message)


def refusal(lines: Iterable[str]) -> str | None:
    """Envoy's reason not to start, from its last critical line; None if it gave none."""
    for line in reversed(list(lines)):
        level, message = parse_line(line)
        if level == "critical":
            return shortened(message)
    return None


def start_failure(name: str, code: int, lines: Iterable[str]) -> HairpinError:
    """Why an Envoy ended before it was ready.

    Args:
        name: what the user knows it as.
        code: its exit code, negative for a signal.
        lines: what it wrote to stderr.
    """
    lines = list(lines)
    reason = refusal(lines)
    if reason is None:
        last = " ".join(" ".join(lines[-3:]).split())[-_MAX_LENGTH:]
        return HairpinError(
            f"{name}: Envoy ended with {exit_in_words(code)} before it was ready; it said: {last or 'nothing'}"
        )
    bind = _CANNOT_BIND.search(reason)
    if bind:
        return bind_failure(name, bind[1], bind[2])
    return RefusedError(name, reason)


def not_ready(name: str, seconds: float, state: str | None) -> UnavailableError:
    """Why an Envoy that runs is of no use yet; `state` is what its admin interface says, None if that is silent."""
    if state is None:
        return UnavailableError(f"{name}: Envoy does not answer after {seconds:g} s")
    return UnavailableError(
        f"{name}: Envoy runs but has no configuration after {seconds:g} s ({state}): its control plane does not answer"
    )


def bind_failure(name: str, address: str, reason: str) -> HairpinError:
    """Why an Envoy can't listen, and what to do about it."""
    if "in use" in reason:
        holder = port_holder(int(address.rpartition(":")[2]))
        return HairpinError(
            f"{name}: can't listen on {address}: the port is taken by {holder or 'another process'}; "
            "end that one, or choose another port"
        )
    return HairpinError(f"{name}: can't listen on {address}: {reason[:1].lower()}{reason[1:]}; choose another address")


def port_holder(port: int) -> str | None:
    """The process that listens on a TCP port, for users; None if the system doesn't tell."""
    import psutil  # noqa: PLC0415 - only ever needed for an error

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return None


def exit_in_words(code: int) -> str:
    """`exit code 1` or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _unescaped(escape: str) -> str:
    if escape[0] in "01234567" and len(escape) > 1:
        return chr(int(escape, 8))
    return _ESCAPED.get(escape, escape)


def _culprit(message: str) -> str:
    """`StaticResources.Clusters[0].Name: value …` of a chain of errors from the whole configuration down to the field."""
    links = [link.partition("ValidationError.")[2] for link in message.split(" | caused by ")]
    if not all(links):
        return message
    path = ".".join(link.partition(":")[0] for link in links)
    return f"{path}:{links[-1].partition(':')[2]}"


def shortened(message: str) -> str:
    """A message without the configuration that Envoy quotes in it, and of bounded length."""
    for wrapper in _WRAPPERS:
        found = wrapper.fullmatch(message)
        if found:
            message = found[1]
    message = _BEFORE_DUMP.sub(r"\1", message)
    for dump in (_AFTER_DUMP, _UNKNOWN_FIELD, _CONSTRAINT):
        found = dump.fullmatch(message.strip())
        if found:
            message = found[1]
    message = " ".join(_culprit(message).split())
    return message if len(message) <= _MAX_LENGTH else message[: _MAX_LENGTH - 3] + "..."
