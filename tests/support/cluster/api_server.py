"""A real API server on loopback: etcd, kube-apiserver, kube-controller-manager; no node, so no pod ever runs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.support.cluster import binaries
from tests.support.cluster.client import Client, Object
from tests.support.cluster.control_plane import Addresses, ControlPlane
from tests.support.cluster.folders import run_folder
from tests.support.cluster.processes import Programs
from tests.support.cluster.users import ADMIN, Server
from tests.support.envoy import Ports

_CRDS = "manifests/charts/base/files/crd-all.gen.yaml"


class ApiServer:
    """What tests get: clients, kubeconfigs and kubectl of any user, and the programs to kill.

    `client` is the admin's.

    Args:
        plane: the programs.
        server: how this process reaches the API server.
    """

    def __init__(self, plane: ControlPlane, server: Server) -> None:
        self.plane = plane
        self.programs = plane.programs
        self.server = server
        self.client = self.client_of(ADMIN)

    def client_of(self, user: str) -> Client:
        """A client that speaks as a user of `users.GROUPS`; close it."""
        return Client(self.server.url, self.server.ca, self.plane.users.tokens[user])

    def kubeconfig(self, user: str = ADMIN, *, namespace: str = "default") -> Path:
        """A user's kubeconfig, with a token."""
        return self.plane.users.kubeconfig(self.server, user, namespace=namespace)

    def certificate_kubeconfig(self, user: str, groups: Sequence[str] = (), *, namespace: str = "default") -> Path:
        """A kubeconfig of anybody, with a client certificate."""
        return self.plane.users.certificate_kubeconfig(self.server, user, groups, namespace=namespace)

    async def kubectl(
        self, *arguments: str, user: str = ADMIN, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Kubernetes' own kubectl as a user."""
        command = [str(self.plane.binaries.kubectl), "--kubeconfig", str(self.kubeconfig(user)), *arguments]
        return await run(command, stdin=stdin, check=check)

    async def new_namespace(self, prefix: str = "test", **labels: str) -> str:
        """A namespace that is nobody else's, once its default service account is there."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        metadata: Object = {"name": name, "labels": labels}
        await self.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        await self.client.wait_for("ServiceAccount", "default", bool, namespace=name)
        return name

    async def install_istio_crds(self) -> None:
        """Istio's custom resources, from its own source."""
        await self.client.apply(binaries.istio_source() / _CRDS)
        await self.established()

    async def established(self) -> None:
        """Waits until every custom resource definition is served."""
        for crd in await self.client.list("CustomResourceDefinition"):
            await self.client.wait_for("CustomResourceDefinition", crd["metadata"]["name"], _is_established)


def _is_established(crd: Object) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


@contextlib.asynccontextmanager
async def api_server(*flags: str) -> AsyncIterator[ApiServer]:
    """An API server on loopback for the length of the block, ready.

    Args:
        flags: more of kube-apiserver's.

    Raises:
        MissingError: the machine lacks Go or etcd.
    """
    programs = await asyncio.to_thread(binaries.control_plane)
    ports = Ports()
    with run_folder("hairpin-api-") as folder:
        at = Addresses(ip="127.0.0.1", api=ports(), etcd=ports(), etcd_peer=ports(), controller_manager=ports())
        with Programs(folder) as running:
            plane = ControlPlane(folder, running, programs, at, flags=flags)
            plane.start()
            server = ApiServer(plane, plane.server)
            try:
                await plane.ready(server.client)
                plane.start_controllers()
                await server.client.wait_for("ServiceAccount", "default", bool, namespace="default")
                yield server
            finally:
                await server.client.close()
                ports.close()


async def run(
    command: Sequence[str], *, stdin: str | None = None, check: bool = True, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """A command to its end, without blocking the loop.

    Raises:
        AssertionError: it failed, and `check` is on.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(stdin.encode() if stdin is not None else None)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    done = subprocess.CompletedProcess(list(command), process.returncode or 0, out.decode(), err.decode())
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
