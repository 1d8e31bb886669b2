"""Datagrams with an address, by sendto, sendmsg and sendmmsg: to our name server, on as they are, or refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from local_proxy.intercept.addresses import LONGEST, SHORTEST, Endpoint, UnixPath, family, parse
from local_proxy.intercept.datagrams import Datagrams
from local_proxy.intercept.kernel import Notification
from local_proxy.intercept.machine import PASS, Fail, Outcome, Pass, ToResolver, Transport
from local_proxy.intercept.memory import read_memory
from local_proxy.intercept.messages import LONGEST_DATAGRAM, MANY, Message
from local_proxy.intercept.placing import unfence
from local_proxy.intercept.sockets import transport
from local_proxy.intercept.tools import Tools

_LOW = 0xFFFFFFFF
_MOST_MESSAGES = 1024  # UIO_MAXIOV


class Sender:
    """Answers calls that send datagrams.

    Args:
        tools: shared with the others.
        questions: sends those that are for name servers.
    """

    def __init__(self, tools: Tools, questions: Datagrams) -> None:
        self._tools = tools
        self._questions = questions

    def sendto(self, notification: Notification) -> None:
        """One datagram."""
        descriptor, pointer, size, flags, name, length = notification.arguments
        raw, address = read_address(notification.tid, name, length & _LOW)
        judged = self._tools.machine.send(address)
        if judged is None or not self._tools.listener.valid(notification.id):
            self._tools.listener.resume(notification.id)
            return

        def data() -> bytes:
            return read_memory(notification.tid, pointer, min(size, LONGEST_DATAGRAM)) if size else b""

        with self._tools.threads.socket(notification.tid, descriptor & _LOW) as handle:
            outcome = _outcome(handle, raw, judged)
            if outcome == PASS:
                self._tools.listener.resume(notification.id)
            else:
                self._answer(notification, lambda: self._carry_out(handle, outcome, raw, data, flags & _LOW))

    def message(self, notification: Notification) -> None:
        """A datagram in parts."""
        descriptor, pointer, flags, *_ = notification.arguments
        message = Message.read(notification.tid, pointer)
        self._messages(notification, descriptor & _LOW, [message], flags & _LOW)

    def messages(self, notification: Notification) -> None:
        """Several at once, each with an address of its own."""
        descriptor, pointer, count, flags, *_ = notification.arguments
        messages = [
            Message.read(notification.tid, pointer + index * MANY.size)
            for index in range(min(count & _LOW, _MOST_MESSAGES))
        ]
        self._messages(notification, descriptor & _LOW, messages, flags & _LOW, several=True)

    def _messages(
        self, notification: Notification, descriptor: int, messages: list[Message], flags: int, *, several: bool = False
    ) -> None:
        """Let the kernel send them if all are its to send; else the first alone: who sends several asks again for the others."""
        addresses = [
            read_address(message.tid, message.name, message.room) if message.name else (b"", None)
            for message in messages
        ]
        judged = [self._tools.machine.send(address) for _, address in addresses]
        sane = all(message.makes_sense for message in messages)
        if not any(judged) or not sane or not self._tools.listener.valid(notification.id):
            self._tools.listener.resume(notification.id)
            return
        with self._tools.threads.socket(notification.tid, descriptor) as handle:
            outcomes = [_outcome(handle, raw, one) for (raw, _), one in zip(addresses, judged, strict=True)]
            if all(outcome == PASS for outcome in outcomes):
                self._tools.listener.resume(notification.id)
                return
            first, raw, outcome = messages[0], addresses[0][0], outcomes[0]

            def send() -> int:
                if outcome == PASS:
                    sent = first.send(handle, raw, flags | socket.MSG_DONTWAIT)
                else:
                    sent = self._carry_out(handle, outcome, raw, first.data, flags)
                if several:
                    first.count_bytes(sent)
                return 1 if several else sent

            self._answer(notification, send)

    def _carry_out(
        self, handle: socket.socket, outcome: Outcome, raw: bytes, data: Callable[[], bytes], flags: int
    ) -> int:
        match outcome:
            case ToResolver():
                return self._questions.send(handle, raw, data(), flags)
            case Fail(error, line):
                self._tools.say(line)
                raise OSError(error, os.strerror(error))
            case _:
                raise AssertionError(outcome)

    def _answer(self, notification: Notification, call: Callable[[], int]) -> None:
        try:
            value = call()
        except OSError as error:
            self._tools.listener.answer(notification.id, error=error.errno or 0)
        else:
            self._tools.listener.answer(notification.id, value=value)


def _outcome(handle: socket.socket, raw: bytes, judged: Outcome | None) -> Outcome:
    """What becomes of a datagram of this very socket, given what the machine says of its address."""
    fits = family(raw) in (handle.family, socket.AF_INET)  # an IPv6 socket takes an IPv4 address too
    if judged is None or transport(handle) is not Transport.UDP or not fits:
        return PASS
    if isinstance(judged, Pass):
        unfence(handle)
    return judged


def read_address(tid: int, pointer: int, length: int) -> tuple[bytes, Endpoint | UnixPath | None]:
    """A socket address in another process, and what it means to us.

    Raises:
        OSError: it can't be read.
    """
    if not SHORTEST <= length <= LONGEST:
        return b"", None
    raw = read_memory(tid, pointer, length)
    return raw, parse(raw)
