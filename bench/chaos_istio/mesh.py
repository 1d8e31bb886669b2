"""A real Istio mesh with hairpin in it, for chaos: `caller` and two replicas of `target`, each with its sidecar."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import yaml

from bench.chaos.laptop import Laptop, forever, run_flags
from bench.chaos.load import Streams
from bench.chaos.records import BYSTANDER, CLUSTER, LAPTOP
from bench.chaos.struck import StruckMesh
from hairpin.errors import HairpinError
from hairpin.kubernetes.installation import CONTROLLER, SYSTEM
from tests.support.cluster.client import ApiError, Object
from tests.support.cluster.host import GATEWAY
from tests.support.cluster.images import PYTHON
from tests.support.cluster.mesh import Cluster
from tests.support.cluster.pods import Place, Pod
from tests.support.istio_mesh import SHOP, developers, drained
from tests.support.netns import connect_in

PAUSE_SECONDS = 0.05
"""Between two requests of a connection: eight sidecars and a control plane share the machine with them."""
AGENT = "app.kubernetes.io/name=hairpin-agent"
APP_PORT = 8080
LAPTOP_PORTS = 18081, 18082
_UNDER_WAY = re.compile(r"^(.*(?:target|hairpin|inbound).*)::rq_active::([1-9]\d*)$", re.MULTILINE)
"""An endpoint on a request's way, and how many requests it has; Istio's sidecars have no such gauges of clusters."""
AWAY = (aiohttp.ClientError, ApiError, OSError, TimeoutError)
"""What asking an API server shows that is not there."""


class IstioChaosMesh(StruckMesh):
    """The mesh.

    Args:
        cluster: where hairpin is installed, and the objects of `_objects` are.
        caller: the pod that the load comes from.
        target: the address of the service.
        folder: for logs, and the journal.
        pause: seconds between two requests of a connection.
    """

    patience: ClassVar[float] = 90.0

    def __init__(self, cluster: Cluster, caller: Pod, target: str, folder: Path, pause: float) -> None:
        journal = folder / "journal"

        def laptop(user: str, name: str, port: int) -> Laptop:
            run = ["-m", "hairpin", "run", *run_flags(user, port), "-n", SHOP, "--"]
            command = cluster.laptop.command(PYTHON, *run, *forever(PYTHON, name, port, journal), user=user)
            return Laptop(user, name, command, folder / f"hairpin-run-{user}.log", enters=True)

        one, other = LAPTOP_PORTS
        super().__init__(laptop("alice", LAPTOP, one), laptop("bob", BYSTANDER, other), journal, pause)
        self.cluster = cluster
        self._folder = folder
        self._from = caller
        self._to = target

    async def told(self, laptop: Laptop) -> str:
        """What it printed, and what the API server and the controllers say of sessions."""
        client, said = self.cluster.client, [laptop.said()]
        try:
            for kind, namespace in (("Session", SHOP), ("EnvoyFilter", SHOP), ("coordination.k8s.io/v1/Lease", SYSTEM)):
                for found in await client.list(kind, namespace):
                    found["metadata"].pop("managedFields", None)
                    said.append(yaml.safe_dump(found))
            query = {"container": "controller", "tailLines": "40"}
            for pod in await self.cluster.pods(SYSTEM):
                log = await client.request("GET", f"/api/v1/namespaces/{SYSTEM}/pods/{pod.name}/log", query=query)
                said += [pod.name, log["message"]]
        except AWAY as error:
            said.append(f"the API server does not answer: {error!r}")
        return "\n".join(said)

    async def under_way(self) -> str:
        """What each sidecar waits for, by endpoint: the last one on the way that has a request is where it is."""
        said = []
        try:
            for pod in await self.cluster.pods(SHOP):
                waits = _UNDER_WAY.findall(await pod.envoy("/clusters"))
                said += [f"{pod.name}: {count} at {endpoint}" for endpoint, count in waits]
        except AWAY as error:
            said.append(f"the API server does not answer: {error!r}")
        return "\n".join(["", *said])

    async def connect(self) -> Streams:
        return await connect_in(self._from.network, self._to, 80)

    async def agent(self) -> Pod:
        """The pod that laptops' tunnels end at."""
        return await self.cluster.pod(SHOP, AGENT)

    async def holder(self) -> str:
        """Which replica of the controller writes: its pod's name and something of its own; empty if it can't be told."""
        try:
            lease = await self.cluster.client.get("Lease", CONTROLLER, SYSTEM)
        except AWAY:
            return ""
        return str((lease or {}).get("spec", {}).get("holderIdentity") or "")

    async def leader(self) -> Pod:
        """That replica's pod."""
        holder = await self.holder()
        for pod in await self.cluster.pods(SYSTEM):
            if holder.startswith(f"{pod.name}-"):
                return pod
        raise HairpinError(f"no controller leads: the lease's holder is {holder!r}")

    async def kill(self, pod: Pod, container: str) -> float:
        """`kill -9` a container; returns when, by the event loop's clock. The node starts it again."""
        at = asyncio.get_running_loop().time()
        await self.cluster.kill_container(pod, container)
        return at

    async def ready_again(self, before: Pod, container: str) -> float:
        """Wait until a killed container runs anew and its pod is ready: when that was."""
        killed = _container(before.object, container)["containerID"]

        async def ready() -> bool:
            try:
                pod = await self.cluster.client.get("Pod", before.name, before.namespace)
            except AWAY:
                return False
            if pod is None:
                return False
            return _container(pod, container).get("containerID") not in (None, killed) and _is_ready(pod)

        return await self.so(ready, f"{before.name} is ready again")

    async def istiod_ready(self) -> bool:
        """Whether istiod says so."""
        place = Place(name="host", namespace="default", network=self.cluster.host.network)
        try:
            return (await place.request(f"http://{GATEWAY}:8080/ready", seconds=2)).status == 200
        except AWAY:
            return False

    async def api_server_ready(self) -> bool:
        """Whether the API server says so."""
        try:
            await self.cluster.client.request("GET", "/readyz")
        except AWAY:
            return False
        return True


@asynccontextmanager
async def chaos_mesh(cluster: Cluster, folder: Path, *, pause: float = PAUSE_SECONDS) -> AsyncIterator[IstioChaosMesh]:
    """The mesh's services, and laptops that have been started.

    Args:
        cluster: where hairpin is installed for the namespace `shop`.
        folder: for the journal and the laptops' logs; users other than root may enter it.
        pause: seconds between two requests of a connection.
    """
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    journal = folder / "journal"
    journal.touch()
    journal.chmod(0o666)
    objects = _objects(folder)
    await cluster.client.apply(*objects)
    try:
        for name in ("caller", "target"):
            await cluster.rolled_out("Deployment", name, SHOP)
        service = await cluster.client.get("Service", "target", SHOP)
        assert service
        chaos = IstioChaosMesh(
            cluster, await cluster.pod(SHOP, "app=caller"), service["spec"]["clusterIP"], folder, pause
        )
        try:
            for laptop in (chaos.laptop, chaos.bystander):
                await laptop.start()
            async with chaos.load() as load:
                await chaos.laptops_answer(load, "at first")
            await drained(await cluster.pods(SHOP, "app=target"))  # the first session has changed their listeners
            yield chaos
        finally:
            for laptop in (chaos.laptop, chaos.bystander):
                await laptop.end()
    finally:
        for made in reversed(objects):
            await cluster.client.delete(made["kind"], made["metadata"]["name"], SHOP)


def _objects(folder: Path) -> list[Object]:
    return [
        developers(SHOP, "chaos"),
        *_deployment("caller", folder, replicas=1),
        *_deployment("target", folder, replicas=2),
    ]


def _deployment(name: str, folder: Path, *, replicas: int) -> list[Object]:
    app = ["-m", "bench.chaos.app", "--name", CLUSTER, "--host", "0.0.0.0", "--port", str(APP_PORT)]
    container = {
        "name": "app",
        "image": "hairpin.test/python:1",
        "args": [*app, "--journal", str(folder / "journal")],
        "ports": [{"containerPort": APP_PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": APP_PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "journal", "mountPath": str(folder)}],
    }
    spec = {
        "serviceAccountName": name,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True},
        "containers": [container],
        "volumes": [{"name": "journal", "hostPath": {"path": str(folder)}}],
    }
    metadata = {"name": name, "namespace": SHOP}
    ports = [{"name": "http", "port": 80, "targetPort": APP_PORT}]
    deployment: dict[str, Any] = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": name}, "ports": ports},
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
    ]


def _container(pod: Object, name: str) -> Object:
    status = pod.get("status", {})
    found = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((one for one in found if one["name"] == name), {})


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
