"""`hairpin run`: from the flags to the command's exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.envoy.binary import find_envoy
from hairpin.errors import InvalidFieldError
from hairpin.model.egress import effective
from hairpin.model.session import Mode, Session
from local_proxy.child import find_command, run_child
from local_proxy.console import Console
from local_proxy.control_planes import KubernetesCluster, control_plane
from local_proxy.environment import SESSION_VARIABLE
from local_proxy.inject import injected
from local_proxy.intercept.strategy import Interception
from local_proxy.link import Link
from local_proxy.linked import hold, linked
from local_proxy.messages import calls_text, claim_text, end_text, injection_text, policy_text, sighting_text
from local_proxy.options import RunOptions, egress_ports
from local_proxy.ports import PortWatcher
from local_proxy.process_tree import ProcessTree, adopt_orphans
from local_proxy.session_store import ControlPlane
from local_proxy.sessions import requests_text
from local_proxy.signals import Signals
from local_proxy.sockets import listening_sockets
from local_proxy.target.given import Given, Reading, target_given
from local_proxy.target.options import FilesMode, From, check_target
from local_proxy.ways import way_into_mesh

if TYPE_CHECKING:
    from local_proxy.target.read import Reader

_TUNNELS = "reverse_tunnel: "
"""Envoy says it of each try."""
SILENT_SECONDS = 5.0
"""After what time without a listening process the user is told what is waited for."""


def run(options: RunOptions) -> int:
    """Run `hairpin run`, and return the command's exit code.

    Raises:
        HairpinError: with the exit code that the command line ends with.
    """
    console = Console(quiet=options.quiet, requests=options.requests)
    handler = _ConsoleHandler(console)
    logging.getLogger("hairpin").addHandler(handler)
    try:
        return asyncio.run(_run(options, console))
    finally:
        logging.getLogger("hairpin").removeHandler(handler)


async def _run(options: RunOptions, console: Console) -> int:
    # What can be wrong here is found before anything is claimed.
    async with control_plane(options.connection) as plane:
        if options.command:
            find_command(options.command, os.environ)
        check_target(options.from_target, why_not=_no_pod(options, plane))
        find_envoy()
        port, gateway = egress_ports(options.egress_port)
        if options.source:
            console.say(options.source)
        if plane.title:
            console.say(plane.title)
        with Signals().installed() as signals:
            async with linked(options, plane, console, egress_port=port, gateway_port=gateway) as link:
                try:
                    return await _hold_and_serve(options, link, console, signals, egress=port, gateway=gateway)
                except asyncio.CancelledError:
                    if signals.received is None:
                        raise
                    return signals.exit_code
                finally:
                    if link.claimed:
                        console.say("everything is given back")


async def _hold_and_serve(
    options: RunOptions, link: Link, console: Console, signals: Signals, *, egress: int, gateway: int
) -> int:
    async with asyncio.TaskGroup() as tasks:
        holding = tasks.create_task(hold(link))
        reading = Reading(_target_reader(options, link.plane), tasks)
        session = await link.first_claim()
        console.say(claim_text(session, requests_text(session, link.plane.routing_key)))
        if options.inject_env:
            console.say(injection_text(injected(session, link.plane.routing_key)))
        telling = tasks.create_task(_tell_policy(link.plane, session, console))
        await link.tunnel_up()
        try:
            if options.command:
                way = way_into_mesh(options, link, http_proxy=egress, gateway=gateway, tell=console.warn)
                async with way as interception:
                    kept = options.egress_port is not None
                    intercepted = interception.every_connection
                    console.say(calls_text(egress, command=True, kept=kept, intercepted=intercepted))
                    return await _serve_command(
                        options, link, console, signals, interception=interception, reading=reading
                    )
            own = options.mode is Mode.EGRESS
            console.say(calls_text(egress, command=own, kept=options.egress_port is not None))
            if options.mode is Mode.EGRESS:
                console.say(f"export http_proxy=http://127.0.0.1:{egress} for whoever shall call; Ctrl-C ends it")
                await asyncio.Event().wait()
            await _watch_ports(options, link, console, PortWatcher(None, port=options.port))
        finally:
            telling.cancel()
            holding.cancel()
    raise AssertionError("only a command ends by itself")


async def _tell_policy(plane: ControlPlane, session: Session, console: Console) -> None:
    try:
        policy = await plane.egress_policy()
    except InvalidFieldError as error:
        console.warn(f"the namespace's EgressPolicy can't be read, so every call is refused: {error}")
        return
    if text := policy_text(effective(policy, session.spec.owner, session.spec.environment)):
        console.say(text)


def _no_pod(options: RunOptions, plane: ControlPlane) -> str:
    """Why there is no target's pod to read; empty if there is one."""
    if not options.command:
        return "the process runs already"
    if options.target is None:
        return "there is no --target"
    return "" if isinstance(plane, KubernetesCluster) else "the embedded mesh has no pods"


def _target_reader(options: RunOptions, plane: ControlPlane) -> Reader | None:
    wanted = options.from_target
    if not isinstance(plane, KubernetesCluster) or options.target is None or not options.command:
        return None
    if wanted.env_from is From.OFF and wanted.files is FilesMode.OFF:
        return None
    from local_proxy.target.read import Reader  # noqa: PLC0415 # only where there is a pod

    files = wanted.files is not FilesMode.OFF
    return Reader(plane.api, plane.namespace, options.target, container=wanted.container, files=files)


async def _serve_command(
    options: RunOptions, link: Link, console: Console, signals: Signals, *, interception: Interception, reading: Reading
) -> int:
    needed = (Path.cwd(), Path.home(), Path(find_command(options.command, os.environ)))
    async with target_given(
        options.from_target, reading, link.directory, console.warn, mount=interception.mount, needed=needed
    ) as given:
        for note in given.notes:
            console.say(note)
        return await _serve_given(options, link, console, signals, interception=interception, given=given)


async def _serve_given(
    options: RunOptions, link: Link, console: Console, signals: Signals, *, interception: Interception, given: Given
) -> int:
    session = link.session
    environment = interception.environment({**os.environ, **given.variables}, session.name, options.environment)
    for note in environment.notes:
        console.say(note)
    variables = {**environment.variables, **options.from_target.assigned}
    adopt_orphans()
    heard = interception.heard
    strangers = frozenset(found.inode for found in listening_sockets()) if heard else frozenset()
    async with (
        run_child(
            options.command,
            variables,
            signals,
            folder=link.directory,
            warn=console.warn,
            start=interception.start,
            if_killed=options.if_killed,
        ) as child,
        asyncio.TaskGroup() as tasks,
    ):
        watching = None
        if options.mode is not Mode.EGRESS:
            tree = ProcessTree(child.pid, (SESSION_VARIABLE, session.name))
            preferred = target_port(session.status.resolved_target)
            watcher = PortWatcher(tree, port=options.port, preferred=preferred, heard=heard, strangers=strangers)
            watching = tasks.create_task(_watch_ports(options, link, console, watcher))
        code = await child.wait()
        if watching is not None:
            watching.cancel()
    idle = watching is not None and not link.listened
    if end := end_text(Path(options.command[0]).name, code, killed=child.killed, idle=idle):
        console.say(end)
    return code


async def _watch_ports(options: RunOptions, link: Link, console: Console, watcher: PortWatcher) -> None:
    took, copies = False, options.mode is Mode.MIRROR

    async def tell_if_silent() -> None:
        await asyncio.sleep(SILENT_SECONDS)
        if not took:
            console.say(sighting_text(watcher.look(), port=options.port, took=False, copies=copies))

    async with asyncio.TaskGroup() as tasks, contextlib.aclosing(watcher.changes()) as changes:
        tasks.create_task(tell_if_silent())
        async for sighting in changes:
            # First the way, then the word: no request may come before its port is known.
            await link.serve(sighting.listener)
            console.say(sighting_text(sighting, port=options.port, took=took, copies=copies))
            took = sighting.listener is not None


def target_port(resolved: str) -> int | None:
    """The port of a resolved target, `default/checkout:8080`."""
    port = resolved.rpartition(":")[2]
    return int(port) if port.isdigit() else None


class _ConsoleHandler(logging.Handler):
    """What Envoy's supervision has to say, as lines of ours; but of tunnels there is `News`, which says each thing once."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Tell."""
        if _TUNNELS not in (message := record.getMessage()):
            self._console.warn(message)
