"""How a command's connections come to the mesh: intercepted, or by the proxy variables that many programs heed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hairpin.errors import UnavailableError
from local_proxy.child import Starter, start_natively
from local_proxy.descriptors import more_descriptors
from local_proxy.environment import CommandEnvironment, command_environment, intercepted_environment
from local_proxy.intercept.choices import Connect, Intercept, UdpPolicy
from local_proxy.intercept.dns import Forwarder, name_server
from local_proxy.intercept.filter import ALWAYS, EXACT, LISTENING
from local_proxy.intercept.heard import Heard
from local_proxy.intercept.launch import CannotInterceptError, Launched, Waiting, launched, waiting
from local_proxy.intercept.machine import Machine
from local_proxy.intercept.names import Names
from local_proxy.intercept.resolv_conf import Current
from local_proxy.intercept.resolver import Meaning, Resolver
from local_proxy.intercept.supervisor import Answered, Ports, Supervisor
from local_proxy.mounts.plan import Mounter
from local_proxy.rules import Rules

REFUSAL_SECONDS = 1.0
"""How long a connect may wait to hear that the agent would refuse it; it goes on then, and may be refused later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """What the ways into the mesh need of a session."""

    gateway: int
    """The port that takes connections with a header, on loopback."""
    answers: Path | None = None
    """Where Envoy says what became of a connection, if connects are exact: a Unix socket, in a private folder."""
    http_proxy: int
    """The port that takes CONNECT and absolute-form requests."""
    rules: Rules
    local_hosts: tuple[str, ...]
    """What the proxy variables' exceptions can say of the rules."""
    meaning: Callable[[str], Awaitable[Meaning]]
    """What a name means in the mesh."""
    refusal: Callable[[str, str], Awaitable[str]]
    """Why the agent would refuse a target, for a name that was looked up or nothing; nothing if it wouldn't."""


class Interception(Protocol):
    """A way into the mesh."""

    @property
    def every_connection(self) -> bool:
        """Whether it needs nothing of the program."""

    @property
    def heard(self) -> Heard | None:
        """What it hears of the command's listeners, if it does."""

    @property
    def start(self) -> Starter:
        """Starts the command, once."""

    @property
    def mount(self) -> Mounter | None:
        """Mounts files for the command alone, before it is started; None: it can't."""

    def environment(self, inherited: Mapping[str, str], session: str, environment: str | None) -> CommandEnvironment:
        """What the command is started with.

        Args:
            inherited: our own environment.
            session: the session's name.
            environment: the feature environment's name.
        """


@dataclass(frozen=True, slots=True)
class ProxyVariables:
    """The command is told of an HTTP proxy, and may heed it."""

    mesh: Mesh
    waiting: Waiting | None = None
    """Becomes the command, where files are to be mounted for it."""
    every_connection: bool = False
    heard: None = None

    @property
    def start(self) -> Starter:
        """As any program would, but for mounts."""
        return start_natively if self.waiting is None else self.waiting.execute

    @property
    def mount(self) -> Mounter | None:
        """By the process that waits, if there is one."""
        return None if self.waiting is None else self.waiting.mount

    def environment(self, inherited: Mapping[str, str], session: str, environment: str | None) -> CommandEnvironment:
        """With proxy variables."""
        return command_environment(
            inherited,
            egress_port=self.mesh.http_proxy,
            session=session,
            environment=environment,
            local_hosts=self.mesh.local_hosts,
        )


@dataclass(frozen=True, slots=True)
class Seccomp:
    """The command's system calls are answered by us."""

    waiting: Launched
    heard: Heard
    every_connection: bool = True

    @property
    def start(self) -> Starter:
        """Has the waiting process become the command."""
        return self.waiting.execute

    @property
    def mount(self) -> Mounter | None:
        """By the waiting process."""
        return self.waiting.mount

    def environment(self, inherited: Mapping[str, str], session: str, environment: str | None) -> CommandEnvironment:
        """Without proxy variables, the user's included: the pod has none."""
        return intercepted_environment(inherited, session=session, environment=environment)


@contextlib.asynccontextmanager
async def interception(
    choice: Intercept, mesh: Mesh, *, udp: UdpPolicy, tell: Callable[[str], None], mounts: bool = False
) -> AsyncIterator[Interception]:
    """The way that was chosen, or is possible, during the block.

    Args:
        choice: the user's.
        mesh: the session's.
        udp: what becomes of UDP.
        tell: says a line to the user; from any thread.
        mounts: whether files must be mounted for the command, whatever the way.

    Raises:
        UnavailableError: it must be interception, and can't.
    """
    async with contextlib.AsyncExitStack() as stack:
        way: Interception = ProxyVariables(mesh)
        if choice is not Intercept.OFF:
            try:
                way = await stack.enter_async_context(_seccomp(mesh, udp, tell))
            except CannotInterceptError as error:
                if choice is Intercept.ON:
                    raise UnavailableError(f"--intercept on: {error}; --intercept off uses proxy variables") from error
                tell(fallback_text(str(error)))
        if mounts and way.mount is None and sys.platform == "linux":
            way = ProxyVariables(mesh, await stack.enter_async_context(waiting()))
        yield way


def fallback_text(reason: str) -> str:
    """What is said where interception is not possible."""
    return (
        f"connections are not intercepted: {reason}. By proxy variables curl, Python, Go and the like make their HTTP calls "
        "in the mesh; TCP of other kinds, names of the mesh and programs that heed no such variables are not covered"
    )


@contextlib.asynccontextmanager
async def _seccomp(mesh: Mesh, udp: UdpPolicy, tell: Callable[[str], None]) -> AsyncIterator[Interception]:
    reported = ALWAYS | LISTENING
    way = Connect.AT_ONCE if mesh.answers is None else Connect.EXACT
    if way is Connect.EXACT:
        reported |= EXACT
    async with launched(reported) as waiting, asyncio.TaskGroup() as tasks:
        settings, names = Current(), Names()
        resolver = Resolver(
            tasks,
            mesh.rules,
            names,
            ask=mesh.meaning,
            forward=Forwarder(lambda: settings.now().name_servers),
            search=lambda: settings.now().search,
        )
        asking, heard = _Asking(tasks, mesh.refusal), Heard()
        async with name_server(resolver.answer) as dns:
            supervisor = Supervisor(
                waiting.listener,
                waiting.threads,
                waiting.architecture,
                Machine(mesh.rules, names, settings, udp, way),
                Ports(mesh.gateway, dns.udp, dns.tcp),
                ask=asking.ask,
                tell=tell,
                answers=_answers(mesh.answers) if mesh.answers is not None else None,
                moves=heard.moves,
                listened=heard.opened,
                placed=waiting.placed,
            )
            supervisor.start()
            # The process that becomes the command has been started, with the limit that it inherits.
            with more_descriptors():
                try:
                    yield Seccomp(waiting, heard)
                finally:
                    supervisor.stop()
                    asking.close()


class _Asking:
    """Asks the agent about destinations, for the supervisor's thread."""

    def __init__(self, tasks: asyncio.TaskGroup, refusal: Callable[[str, str], Awaitable[str]]) -> None:
        self._tasks = tasks
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()

    def ask(self, target: str, name: str, answered: Answered) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._begin, self._ask(target, name, answered))

    def close(self) -> None:
        """Ask no more."""
        for task in self._running:
            task.cancel()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _ask(self, target: str, name: str, answered: Answered) -> None:
        refusal = ""
        try:
            async with asyncio.timeout(REFUSAL_SECONDS):
                refusal = await self._refusal(target, name)
        except TimeoutError:
            pass
        finally:
            answered(refusal)


def _answers(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
