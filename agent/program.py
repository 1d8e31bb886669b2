"""The agent's life: certificate, Envoy, reports; and an orderly end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from contextlib import AsyncExitStack
from http import HTTPStatus

from aiohttp import web

from agent.addresses import own_addresses
from agent.bootstrap import agent_bootstrap, request_log_rate
from agent.control_plane import ControlPlaneClient
from agent.egress import POLICY_UPDATES
from agent.judge import Judge
from agent.laptops import Laptops, RequestWatch
from agent.names import Names
from agent.policies import Policies
from agent.reports import GAUGES, Reports
from agent.resolve import ForbiddenHosts
from agent.settings import JUDGE_SOCKET, LAPTOPS_SOCKET, AgentSettings, Role
from hairpin.envoy.process import ManagedEnvoy
from hairpin.errors import HairpinError
from hairpin.files import private_directory, write_private
from hairpin.unix_sockets import socket_directory

log = logging.getLogger(__name__)

_POLL_INTERVAL = 15.0
"""Seconds between looks at Envoy's gauges, the safety net under its events."""


class Agent:
    """One replica, from `run` to its return."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._watch = RequestWatch()
        self._reports = Reports(self._watch.seen, requests=settings.report_requests)
        self._policies = Policies()
        self._policies.on_sessions = self._watch.keep
        self._stopping = asyncio.Event()
        self._envoy: ManagedEnvoy | None = None
        self._had_policy = settings.role is not Role.EGRESS
        """Readiness waits for it once, in a role that can do nothing without; never again, nor for steered requests."""

    def stop(self) -> None:
        """Begin the end: not ready and gone from the control plane at once, then a while for what is in flight."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            HairpinError: it can't start.
        """
        private_directory(self._settings.directory)
        async with AsyncExitStack() as stack:
            sockets = stack.enter_context(socket_directory(self._settings.directory, JUDGE_SOCKET, LAPTOPS_SOCKET))
            settings = self._settings = dataclasses.replace(self._settings, sockets=sockets)
            rate = json.dumps(request_log_rate(settings)).encode()
            write_private(settings.request_log_rate, rate)
            await self._serve_readiness(stack)
            async with asyncio.TaskGroup() as tasks:
                life = tasks.create_task(self._live(stack))
                await self._stopping.wait()
                life.cancel()
            if self._envoy is not None:
                log.info("agent %s drains for %g s", settings.name, settings.drain_seconds)
                await asyncio.sleep(settings.drain_seconds)

    async def _live(self, stack: AsyncExitStack) -> None:
        """Everything until the end begins; what must outlive it goes on the stack."""
        settings = self._settings
        judge = self._judge()
        for server in (
            await judge.serve(settings.judge_socket),
            await Laptops(self._watch, Names.of(settings, judge)).serve(settings.laptops_socket),
        ):
            stack.push_async_callback(server.cleanup)
        stack.callback(self._watch.close)
        client = await stack.enter_async_context(ControlPlaneClient.connect(settings.control_plane))
        lease = await client.first_certificate(settings.identity)
        log.info("agent %s is %s", settings.name, lease.identity)
        envoy = ManagedEnvoy(
            "agent",
            agent_bootstrap(settings),
            settings.directory / "envoy",
            on_line=self._reports.on_line,
            on_exit=self._on_exit,
            drain_seconds=settings.drain_seconds,
            # A request for a session without a tunnel is no error, yet Envoy writes a line of error for each.
            arguments=("--component-log-level", "filter:critical"),
        )
        stack.push_async_callback(envoy.stop)
        await envoy.start()
        self._envoy = envoy
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.keep_certificate(settings.identity, lease, self._trust_anew))
            tasks.create_task(client.report(settings.name, self._reports))
            # The mesh on one machine has no policies; a cluster's controller always does.
            in_cluster = settings.mesh_outbound is None
            tasks.create_task(client.policies(settings.name, self._policies, needed=in_cluster))
            tasks.create_task(self._poll(envoy))
            tasks.create_task(envoy.run())

    def _judge(self) -> Judge:
        settings = self._settings
        # In a mesh on one machine others live at its addresses; a pod's are the agent's and its sidecar's alone.
        own = {} if settings.mesh_outbound else own_addresses()
        return Judge(
            forbidden={**own, **settings.forbidden},
            forbidden_hosts=ForbiddenHosts(names=settings.forbidden_hosts),
            policies=self._policies,
        )

    async def _trust_anew(self) -> None:
        log.warning("another authority signs the certificates: Envoy is started again, for it reads that at its start")
        if self._envoy is not None:
            self._reports.reset()
            await self._envoy.restart()

    def _on_exit(self, returncode: int) -> None:
        log.warning("Envoy ended with %d", returncode)
        self._reports.reset()

    async def _poll(self, envoy: ManagedEnvoy) -> None:
        while True:
            await asyncio.sleep(_POLL_INTERVAL)
            try:
                self._reports.reconcile(await envoy.admin.stats(GAUGES))
            except (HairpinError, OSError) as error:
                log.warning("Envoy's gauges can't be read: %s", error)

    async def _serve_readiness(self, stack: AsyncExitStack) -> None:
        application = web.Application()
        application.router.add_get("/ready", self._ready)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, self._settings.ready.host, self._settings.ready.port).start()
        except OSError as error:
            raise HairpinError(f"listeners.ready: {self._settings.ready} can't be used: {error.strerror}") from error

    async def _ready(self, request: web.Request) -> web.Response:
        del request
        if self._stopping.is_set():
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="draining\n")
        if self._envoy is None or not await self._envoy.admin.ready() or not await self._has_policy(self._envoy):
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="starting\n")
        return web.Response(text="ready\n")

    async def _has_policy(self, envoy: ManagedEnvoy) -> bool:
        """Whether the control plane once said who may use the egress. What it said holds while it is away."""
        if not self._had_policy:
            try:
                came = await envoy.admin.stats(POLICY_UPDATES)
            except (HairpinError, OSError):
                return False
            self._had_policy = any(came.values())
        return self._had_policy
