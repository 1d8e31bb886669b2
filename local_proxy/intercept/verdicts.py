"""What became of connections through the gateway: asked by connecting, answered by what Envoy says of them.

A connection to the gateway succeeds whatever becomes of the one behind it. That is told by Envoy's log, record by record
(`answers`), on another way; which record is whose is told by the connection's own end.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from local_proxy.intercept.addresses import Endpoint, proxy_header
from local_proxy.intercept.answers import Answer, AnswerReader
from local_proxy.intercept.machine import Fail, ToGateway
from local_proxy.intercept.sockets import connect_here, endpoint, without_fast_open
from local_proxy.intercept.tools import Tools

_LAST_WORDS_SECONDS = 1.0
"""How long after a connection's end Envoy may take to say why."""
_RECORDS = 1 << 16


@dataclass(slots=True)
class Question:
    """A connection to the gateway of which we wait to hear."""

    handle: socket.socket
    """The program's, or ours."""
    address: Endpoint
    to: ToGateway
    settle: Callable[[Fail | None], None]
    """Called with what came of it: None if it is connected."""
    here: str = ""
    """The connection's own end, as answers name it."""
    rest: bytes = b""
    """What of the header is not yet written."""


class Verdicts:
    """Asks, and hears.

    Args:
        tools: shared with the others.
        gateway: its port.
        answers: where Envoy says what became of a connection: a Unix socket that listens. It is closed in the end.
    """

    def __init__(self, tools: Tools, gateway: int, answers: socket.socket) -> None:
        self._tools = tools
        self._gateway = gateway
        self._listener = answers
        self._streams: dict[int, socket.socket] = {}
        self._questions: dict[str, Question] = {}
        answers.setblocking(False)
        tools.reactor.watch(answers.fileno(), select.EPOLLIN, self._on_stream)

    def close(self) -> None:
        """Settle what waits: there is no network any more."""
        for question in tuple(self._questions.values()):
            self._settled(question, Fail(errno.ENETDOWN))
        for stream in self._streams.values():
            stream.close()
        self._listener.close()

    def ask(self, question: Question, seconds: float) -> None:
        """Connect a question's socket to the gateway, and settle it when an answer has come, `seconds` later at the latest."""
        handle = question.handle
        without_fast_open(handle)
        error = connect_here(handle, self._gateway)
        if error not in (0, errno.EINPROGRESS):
            question.settle(self._tools.machine.failed(question.address, question.to, None, time.monotonic()))
            return
        here = endpoint(handle.getsockname())
        question.rest = proxy_header(here, question.address, question.to.target, question.to.name)
        question.here = str(here)
        self._questions[question.here] = question
        descriptor = handle.fileno()
        self._tools.reactor.watch(descriptor, select.EPOLLOUT, lambda _: self._write(question))
        self._tools.reactor.until(descriptor, seconds, lambda: self._late(question, seconds))
        self._write(question)

    def _write(self, question: Question) -> None:
        """Write the header; when it is, wait for the connection's end, which comes with an answer too, or in its place."""
        try:
            while question.rest:
                question.rest = question.rest[question.handle.send(question.rest) :]
        except BlockingIOError:
            return
        except OSError:  # nobody takes connections
            self._failed(question, None)
            return
        descriptor = question.handle.fileno()
        self._tools.reactor.change(descriptor, select.EPOLLRDHUP, lambda _: self._ended(question))

    def _ended(self, question: Question) -> None:
        """The gateway has closed the connection; why comes by another way, soon if at all."""
        descriptor = question.handle.fileno()
        self._tools.reactor.forget(descriptor)
        self._tools.reactor.until(descriptor, _LAST_WORDS_SECONDS, lambda: self._failed(question, None))

    def _late(self, question: Question, seconds: float) -> None:
        self._settled(question, self._tools.machine.late(question.address, seconds))

    def _failed(self, question: Question, answer: Answer | None) -> None:
        self._settled(question, self._tools.machine.failed(question.address, question.to, answer, time.monotonic()))

    def _settled(self, question: Question, fail: Fail | None) -> None:
        self._tools.reactor.forget(question.handle.fileno())
        del self._questions[question.here]
        if fail is not None:
            self._tools.say(fail.line)
        question.settle(fail)

    def _on_stream(self, _: int) -> None:
        """Envoy has something to say; another Envoy, if it was started anew."""
        with contextlib.suppress(OSError):
            stream, _ = self._listener.accept()
            stream.setblocking(False)
            reader = AnswerReader()
            self._streams[stream.fileno()] = stream
            self._tools.reactor.watch(stream.fileno(), select.EPOLLIN, lambda _: self._read(stream, reader))

    def _read(self, stream: socket.socket, reader: AnswerReader) -> None:
        try:
            data = stream.recv(_RECORDS)
            for answer in reader.feed(data):
                question = self._questions.get(answer.source)
                if question is None:
                    continue
                if answer.connected:
                    self._settled(question, None)
                else:
                    self._failed(question, answer)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data = b""
        if not data:
            self._tools.reactor.forget(stream.fileno())
            self._streams.pop(stream.fileno(), None)
            stream.close()
