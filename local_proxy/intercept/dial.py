"""TCP: a program's own socket is connected to the gateway, and opens with a header that says whereto it was meant."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from local_proxy.intercept.addresses import Endpoint, proxy_header
from local_proxy.intercept.kernel import connect_raw
from local_proxy.intercept.limbo import disconnect
from local_proxy.intercept.machine import ToGateway
from local_proxy.intercept.sockets import (
    SYN_RECEIVED,
    SYN_SENT,
    connect_here,
    endpoint,
    tcp_state,
    without_fast_open,
)
from local_proxy.intercept.tools import Caller, Tools

_STALL_SECONDS = 3.0
"""How long a connect that does not block may wait for room at a port of ours: its header must go before its own bytes."""
_Ask = Callable[[str, str, Callable[[str], None]], None]


@dataclass(slots=True)
class _Dial:
    """A connect that is being answered."""

    caller: Caller
    blocking: bool
    answer: int = 0
    """What a connect that has gone well is answered with."""
    rest: bytes = b""
    """What of the header is not yet written."""

    def advance(self) -> int | None:
        """Write the header: 0 when it is, None if the socket isn't connected yet, or an errno."""
        if not self.rest:
            return None if tcp_state(self.caller.handle) in (SYN_SENT, SYN_RECEIVED) else 0
        try:
            while self.rest:
                self.rest = self.rest[self.caller.handle.send(self.rest) :]
        except BlockingIOError:
            return None
        except OSError as error:
            return error.errno or errno.ECONNREFUSED
        return 0  # what takes bytes is connected


class Dialer:
    """Answers connects of TCP sockets. Takes their handles over, and closes them.

    Args:
        tools: shared with the others.
        ask: asks the agent.
    """

    def __init__(self, tools: Tools, ask: _Ask) -> None:
        self._tools = tools
        self._ask = ask
        self._dials: set[int] = set()
        self._asked: dict[tuple[str, str], list[Callable[[], None]]] = {}

    def gateway(self, caller: Caller, port: int, address: Endpoint, to: ToGateway) -> None:
        """Connect to the gateway. If it is not known whether the agent refuses that, a connect that may wait waits for it."""
        if not to.ask:
            self.dial(caller, port, (address, to))
            return
        blocking = os.get_blocking(caller.handle.fileno())

        def go() -> None:
            if (refusal := self._tools.machine.refusal(to.target, to.name, time.monotonic())) and blocking:
                caller.handle.close()
                self._dials.discard(caller.id)
                fail = self._tools.machine.refused(address, refusal)
                self._tools.say(fail.line)
                self._tools.listener.answer(caller.id, error=fail.error)
            else:
                self.dial(caller, port, (address, to))

        if blocking:
            self._dials.add(caller.id)
            self._question(to, go)
        else:
            # Its event loop must not stand still: this one connects, the next is told.
            self._question(to, lambda: None)
            go()

    def dial(self, caller: Caller, port: int, meant: tuple[Endpoint, ToGateway] | None) -> None:
        """Connect to a port of ours, with a header if `meant` says whereto."""
        dial = self._begin(caller, lambda handle: connect_here(handle, port))
        if dial is None:
            return
        if meant is not None:
            address, to = meant
            dial.rest = proxy_header(endpoint(caller.handle.getsockname()), address, to.target, to.name)
        self._advance(dial)

    def moved(self, caller: Caller, raw: bytes) -> None:
        """Connect to another address of this machine, where what was meant has been moved to."""
        dial = self._begin(caller, lambda handle: connect_raw(handle, raw))
        if dial is None:
            return
        if dial.blocking:
            self._advance(dial)
        else:
            self._finish(dial, 0)

    def close(self) -> None:
        """Answer what waits."""
        for identity in self._dials:
            self._tools.listener.answer(identity, error=errno.ENETDOWN)
        self._dials.clear()

    def _begin(self, caller: Caller, connect: Callable[[socket.socket], int]) -> _Dial | None:
        """A connect that goes on; None if it has failed and was answered."""
        descriptor = caller.handle.fileno()
        dial = _Dial(caller, os.get_blocking(descriptor))
        self._dials.add(caller.id)
        if dial.blocking:
            os.set_blocking(descriptor, False)  # a full queue must not hold this thread
        without_fast_open(caller.handle)
        error = connect(caller.handle)
        if error not in (0, errno.EINPROGRESS):
            self._finish(dial, error)
            return None
        if not dial.blocking:
            dial.answer = error
        return dial

    def _advance(self, dial: _Dial) -> None:
        error = dial.advance()
        if error is not None:
            self._finish(dial, error)
            return
        descriptor = dial.caller.handle.fileno()

        def ready(_: int) -> None:
            error = dial.advance()
            if error is not None:
                self._tools.reactor.forget(descriptor)
                self._finish(dial, error)

        def late() -> None:
            self._tools.reactor.forget(descriptor)
            disconnect(dial.caller.handle)
            self._finish(dial, errno.ETIMEDOUT)

        self._tools.reactor.watch(descriptor, select.EPOLLOUT, ready)
        if not dial.blocking:
            self._tools.reactor.until(descriptor, _STALL_SECONDS, late)

    def _finish(self, dial: _Dial, error: int) -> None:
        if dial.blocking:
            os.set_blocking(dial.caller.handle.fileno(), True)
        if not error:
            self._tools.peers.remember(dial.caller.handle, dial.caller.raw)
        dial.caller.handle.close()
        self._dials.discard(dial.caller.id)
        self._tools.listener.answer(dial.caller.id, error=error or dial.answer)

    def _question(self, to: ToGateway, then: Callable[[], None]) -> None:
        key = (to.target, to.name)
        waiting = self._asked.get(key)
        if waiting is not None:
            waiting.append(then)
            return
        self._asked[key] = [then]

        def answered(refusal: str) -> None:
            self._tools.machine.learn(*key, refusal, time.monotonic())
            for waiter in self._asked.pop(key):
                waiter()

        self._ask(*key, lambda refusal: self._tools.reactor.post(lambda: answered(refusal)))
