"""Brings a mesh up and keeps it up: the control plane, the sidecars, the agents, the services."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hairpin.envoy.binary import find_envoy
from hairpin.envoy.process import ManagedEnvoy
from hairpin.errors import HairpinError, UnavailableError
from hairpin.mesh.mesh_file import PLACEHOLDER
from hairpin.mesh.program import Program
from hairpin.mesh.sidecar import sidecar_bootstrap
from hairpin.mesh.state import write_folder
from hairpin.model.mesh import ENTRY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from hairpin.mesh.state import MeshFolder
    from hairpin.model.mesh import Mesh, SocketAddress, Workload

log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""How often a program may end before it listens; then the mesh gives up."""
START_TIMEOUT = 60.0
"""Seconds that the whole mesh may take to come up."""


class MeshSupervisor:
    """The processes of one mesh.

    Args:
        mesh: what to run.
        folder: where its files are.
        directory: where the services' commands run.
    """

    def __init__(self, mesh: Mesh, folder: MeshFolder, directory: Path) -> None:
        self.mesh = mesh
        self.folder = folder
        self._directory = directory
        self._awaited: tuple[str, SocketAddress] = ("the control plane", mesh.control_plane.api)
        self.control_plane = self._python("xds-server", "xds_server", str(folder.settings))
        self.agents = {
            agent.name: self._python(agent.name, "agent", str(folder.agent(agent.name))) for agent in mesh.agents
        }
        self.services = {w.name: self._service(w) for w in mesh.workloads if w.command}
        self.proxies = {
            **{w.name: self._proxy(w.name) for w in mesh.workloads},
            **{agent.name: self._proxy(agent.name) for agent in mesh.agents},
            ENTRY: self._proxy(ENTRY, kind=ENTRY),
        }

    @asynccontextmanager
    async def running(self, progress: Callable[[str], None] = lambda _: None) -> AsyncIterator[MeshSupervisor]:
        """The mesh, up and ready; down again at the end.

        Raises:
            HairpinError: Envoy or a service's program is missing, or the mesh did not come up.
        """
        find_envoy()  # what can be wrong is found before anything is begun
        for service in self.services.values():
            service.check()
        write_folder(self.folder, self.mesh)
        async with asyncio.TaskGroup() as tasks:
            programs = [self.control_plane, *self.agents.values(), *self.services.values()]
            running = [tasks.create_task(program.run()) for program in programs]
            try:
                await self._start_in_time(tasks, progress)
                yield self
            finally:
                await self._stop()
                for task in running:
                    task.cancel()

    async def _start_in_time(self, tasks: asyncio.TaskGroup, progress: Callable[[str], None]) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._start(tasks, progress)
        except TimeoutError:
            what, address = self._awaited
            logs = self.folder.root / "logs"
            raise UnavailableError(
                f"the mesh did not come up within {START_TIMEOUT:g} s: {what} does not listen on {address}; look into {logs}"
            ) from None

    async def _start(self, tasks: asyncio.TaskGroup, progress: Callable[[str], None]) -> None:
        await self._listening("the control plane", self.mesh.control_plane.api, self.control_plane)
        await self._listening("the control plane", self.mesh.control_plane.xds)
        progress("control plane")
        async with asyncio.TaskGroup() as watching:
            # Where a stranger listens on its port, it was taken for the control plane so far.
            watch = watching.create_task(self._lasting("the control plane", self.control_plane))
            async with asyncio.TaskGroup() as starting:
                for proxy in self.proxies.values():
                    starting.create_task(proxy.start())
            watch.cancel()
        for proxy in self.proxies.values():
            tasks.create_task(proxy.run())  # started again when it dies, until it is stopped
        progress("sidecars")
        for agent in self.mesh.agents:
            await self._listening(agent.name, agent.steer, self.agents[agent.name])
        progress("agent")
        for workload in self.mesh.workloads:
            for port in workload.ports:
                if workload.command:
                    await self._listening(workload.name, port.app, self.services[workload.name])
                await self._listening(f"{workload.name}'s sidecar", port.inbound)
        await self._listening("the entry", self.mesh.entry.address)
        progress("services")

    async def _stop(self) -> None:
        async with asyncio.TaskGroup() as stopping:
            for proxy in self.proxies.values():
                stopping.create_task(proxy.stop())

    async def _listening(self, what: str, address: SocketAddress, program: Program | None = None) -> None:
        self._awaited = what, address
        while True:
            if program is not None:
                _check(what, program)
            try:
                _, writer = await asyncio.open_connection(address.host, address.port)
            except OSError:
                log.debug("%s does not listen on %s yet", what, address)
                await asyncio.sleep(0.05)
                continue
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return

    async def _lasting(self, what: str, program: Program) -> None:
        while True:
            _check(what, program)
            await asyncio.sleep(0.05)

    def _python(self, name: str, module: str, settings: str) -> Program:
        command = [sys.executable, "-m", module, "--config", settings]
        return Program(name, command, self.folder.log(name))

    def _service(self, workload: Workload) -> Program:
        environment = service_environment(workload)
        command = [_filled(word, workload) for word in workload.command]
        return Program(
            workload.name, command, self.folder.log(workload.name), environment=environment, directory=self._directory
        )

    def _proxy(self, name: str, *, kind: str = "sidecar") -> ManagedEnvoy:
        bootstrap = sidecar_bootstrap(
            self.mesh,
            name,
            self.folder.identity(name),
            self.folder.control_plane_identity(name),
            kind=kind,
        )
        return ManagedEnvoy(f"{kind}-{name}", bootstrap, self.folder.run(f"{kind}-{name}"))


def _check(what: str, program: Program) -> None:
    if program.restarts >= MOST_FAILURES:
        raise HairpinError(f"{what} ended {program.restarts} times before it listened: {program.last_words()}")


def service_environment(workload: Workload) -> dict[str, str]:
    """The process's environment with its sidecar as its HTTP proxy: what iptables do in a cluster."""
    proxy = f"http://{workload.outbound}"
    port = workload.ports[0].app.port
    variables = {
        "http_proxy": proxy,
        "grpc_proxy": proxy,
        "no_proxy": "localhost,127.0.0.1,::1",
        "PORT": str(port),
        "POD_NAMESPACE": workload.namespace,
        "HOSTNAME": f"{workload.name}-{socket.gethostname()}",
    }
    both = {**variables, "HTTP_PROXY": proxy, "NO_PROXY": variables["no_proxy"]}
    return {**os.environ, **both}


def _filled(word: str, workload: Workload) -> str:
    """A command's word with `{python}`, `{port}` and `{port:NAME}` replaced."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "python":
            return sys.executable
        port = workload.port(match[2]) if match[2] else workload.ports[0]
        return str(port.app.port) if port else match[0]

    filled: str = PLACEHOLDER.sub(value, word)
    return filled
