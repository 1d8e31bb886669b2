"""The agent's life: certificate, Envoy, reports; and an orderly end."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from http import HTTPStatus
from ipaddress import ip_network

from aiohttp import web

from agent.bootstrap import agent_bootstrap, request_log_rate
from agent.control_plane import ControlPlaneClient
from agent.judge import Judge
from agent.reports import GAUGES, Reports
from agent.settings import AgentSettings
from hairpin.envoy.process import ManagedEnvoy
from hairpin.errors import HairpinError
from hairpin.files import private_directory, write_private

log = logging.getLogger(__name__)

_POLL_INTERVAL = 15.0
"""Seconds between looks at Envoy's gauges, the safety net under its events."""


class Agent:
    """One replica, from `run` to its return."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._reports = Reports()
        self._stopping = asyncio.Event()
        self._envoy: ManagedEnvoy | None = None

    def stop(self) -> None:
        """Begin the end: not ready and gone from the control plane at once, then a while for what is in flight."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            HairpinError: it can't start.
        """
        settings = self._settings
        private_directory(settings.directory)
        rate = json.dumps(request_log_rate(settings)).encode()
        write_private(settings.request_log_rate, rate)
        async with AsyncExitStack() as stack:
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
        judge = await Judge(forbidden=tuple(map(ip_network, settings.forbidden))).serve(settings.judge_socket)
        stack.push_async_callback(judge.cleanup)
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
            tasks.create_task(client.keep_certificate(settings.identity, lease))
            tasks.create_task(client.report(settings.name, self._reports))
            tasks.create_task(self._poll(envoy))
            tasks.create_task(envoy.run())

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
        if self._envoy is None or not await self._envoy.admin.ready():
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="starting\n")
        return web.Response(text="ready\n")
