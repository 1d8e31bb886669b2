"""The controller in this process, against a real API server: what an installation leaves there, agents made of HTTP calls."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import yaml

from hairpin.certificates import new_key_and_request
from hairpin.kubernetes.admission import admission_objects
from hairpin.kubernetes.api import Api, connect
from hairpin.kubernetes.crds import custom_resource_definitions
from hairpin.kubernetes.installation import CONTROLLER, SYSTEM, Installation
from hairpin.kubernetes.rbac import controller_roles, served_roles
from hairpin.model.mesh import SocketAddress
from tests.support.cluster.api_server import ApiServer
from tests.support.cluster.client import Client, Object
from tests.support.envoy import Ports, eventually
from xds_server.server.kubernetes.main import Replica, serving
from xds_server.server.kubernetes.settings import Settings

ROOT = "istio-system"


def installation(*namespaces: str) -> Installation:
    return Installation(namespaces=namespaces, root_namespace=ROOT)


async def install(server: ApiServer) -> None:
    """What `hairpin install` leaves in the cluster, without what runs."""
    await server.install_istio_crds()
    for name in (SYSTEM, ROOT):
        await server.client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": CONTROLLER, "namespace": SYSTEM}}
    await server.client.apply(*custom_resource_definitions(), account)
    await server.established()
    await server.client.apply(*admission_objects(), *controller_roles(installation()))


async def serve_namespace(server: ApiServer, namespace: str, *, replicas: int = 1) -> None:
    """The controller's role in a namespace, and its agent: pods without processes, made ready by hand."""
    await server.client.apply(*served_roles(namespace))
    labels = {"app.kubernetes.io/name": "hairpin-agent", "app.kubernetes.io/part-of": "hairpin"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "hairpin-agent"}}
    await server.client.apply(account, namespace=namespace)
    await workload(server, namespace, "hairpin-agent", kind="StatefulSet", replicas=replicas, labels=labels)


async def workload(
    server: ApiServer,
    namespace: str,
    name: str,
    *,
    kind: str = "Deployment",
    replicas: int = 1,
    labels: dict[str, str] | None = None,
    port: int = 8080,
    sidecar: bool = True,
) -> None:
    """A workload with a Service, and its pods as if they ran."""
    labels = labels or {"app": name}
    containers = [{"name": "app", "image": "app", "ports": [{"containerPort": port, "name": "http"}]}]
    if sidecar:
        containers.append({"name": "istio-proxy", "image": "proxy"})
    pod = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    if kind == "StatefulSet":
        pod["spec"]["serviceAccountName"] = name
    spec: Object = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod}
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    service = {"selector": labels, "ports": [{"port": 80, "name": "http", "targetPort": port}]}
    await server.client.apply(
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
        namespace=namespace,
    )
    selector = ",".join(f"{key}={value}" for key, value in labels.items())

    async def pods() -> list[Object]:
        found = await server.client.list("Pod", namespace, labels=selector)
        return found if len(found) == replicas else []

    for found in await eventually(pods, what=f"pods of {name}"):
        await make_ready(server.client, found)


async def make_ready(client: Client, pod: Object, *, ready: bool = True) -> None:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Running", "podIP": "10.1.2.3", "conditions": [condition]}
    metadata = pod["metadata"]
    await client.patch(
        "Pod", metadata["name"], {"status": status}, namespace=metadata["namespace"], subresource="status"
    )


@contextlib.asynccontextmanager
async def controller_api(server: ApiServer) -> AsyncIterator[Api]:
    """The API server as the controller's service account has it."""
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{CONTROLLER}/token"
    answer = await server.client.request("POST", path, {"spec": {"expirationSeconds": 3600}})
    config = yaml.safe_load(server.kubeconfig(namespace=SYSTEM).read_text())
    config["users"][0]["user"] = {"token": answer["status"]["token"]}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        async with connect(kubeconfig=file.name) as api:
            yield api


@contextlib.asynccontextmanager
async def controller(
    api: Api, *namespaces: str, crash_at: int | None = None, identity: str = "", **settings: Any
) -> AsyncIterator[Replica]:
    """One replica in this process.

    Args:
        api: as the controller has it.
        namespaces: that it serves.
        identity: its name.
        crash_at: end with `CrashError` instead of the write of this number.
        settings: others of them.
    """
    with contextlib.closing(Ports()) as ports:
        chosen = Settings(
            namespaces=frozenset(namespaces),
            namespace=SYSTEM,
            root_namespace=ROOT,
            api=SocketAddress("127.0.0.1", ports()),
            xds=SocketAddress("127.0.0.1", ports()),
            **{"lease_seconds": 2, **settings},
        )
        async with serving(
            CrashingApi.of(api, crash_at) if crash_at is not None else api, chosen, identity=identity
        ) as replica:
            yield replica


class CrashError(Exception):
    """The controller dies here."""


class CrashingApi(Api):
    """Dies instead of a write: of a status, an EnvoyFilter, a ConfigMap, or of a session's end. Notes those before."""

    writes_left: int
    written: list[str]
    """As `PATCH envoyfilters/hairpin-sessions-…`."""

    @classmethod
    def of(cls, api: Api, writes: int) -> CrashingApi:
        crashing = cls(api._session, api._credentials)
        crashing.writes_left, crashing.written = writes, []
        return crashing

    async def call(self, method: str, path: str, **arguments: Any) -> Any:
        counted = method in ("PATCH", "PUT", "DELETE") and "/leases/" not in path
        if counted:
            what = f"{method} {path.partition('/namespaces/')[2].partition('/')[2]}"
            if self.writes_left == 0:
                raise CrashError(what)
            self.writes_left -= 1
            self.written.append(what)
        return await super().call(method, path, **arguments)


@dataclass(slots=True)
class FakeAgent:
    """An agent's replica as the controller sees it: a pod, its token, and HTTP calls."""

    server: ApiServer
    namespace: str
    pod: str = "hairpin-agent-0"
    account: str = "hairpin-agent"
    token: str = ""
    tunnels: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    statuses: list[int] = field(default_factory=list)

    async def get_token(self, *, audience: str = "hairpin") -> str:
        pod = await self.server.client.get("Pod", self.pod, self.namespace)
        assert pod
        reference = {"kind": "Pod", "apiVersion": "v1", "name": self.pod, "uid": pod["metadata"]["uid"]}
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{self.account}/token"
        answer = await self.server.client.request(
            "POST", path, {"spec": {"audiences": [audience], "boundObjectRef": reference}}
        )
        self.token = answer["status"]["token"]
        return self.token

    def report(self, *tunnels: str) -> None:
        self.tunnels = set(tunnels)
        self.changed.set()

    async def _lines(self) -> AsyncIterator[bytes]:
        while True:
            self.changed.clear()
            yield json.dumps({"tunnels": sorted(self.tunnels)}).encode() + b"\n"
            await self.changed.wait()

    async def run(self, replicas: Callable[[], list[Replica]]) -> None:
        """Report to whoever leads, until cancelled."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
            while True:
                for replica in replicas():
                    with contextlib.suppress(aiohttp.ClientError):
                        async with client.post(
                            f"{url(replica)}/v1/agents/{self.pod}/reports",
                            data=self._lines(),
                            headers={"Authorization": f"Bearer {self.token}"},
                            ssl=trusting(replica),
                            server_hostname=SERVER_NAME,
                        ) as response:
                            self.statuses.append(response.status)
                await asyncio.sleep(0.1)


SERVER_NAME = f"{CONTROLLER}.{SYSTEM}.svc"


def url(replica: Replica) -> str:
    return f"https://{replica.settings.api}"


def trusting(replica: Replica) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=replica.authority.certificate)


@contextlib.asynccontextmanager
async def reporting(agent: FakeAgent, *replicas: Replica) -> AsyncIterator[FakeAgent]:
    if not agent.token:
        await agent.get_token()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(agent.run(lambda: list(replicas)))
        try:
            yield agent
        finally:
            task.cancel()


@dataclass(slots=True)
class Laptop:
    """A developer's side: Session objects."""

    client: Client
    namespace: str
    owner: str
    request: str = field(default_factory=lambda: new_key_and_request()[1])

    async def claim(self, name: str, *, environment: str | None = None, **spec: Any) -> Object:
        document = {
            "apiVersion": "hairpin.dev/v1alpha1",
            "kind": "Session",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "owner": self.owner,
                "target": {"name": "checkout", "namespace": self.namespace},
                "environment": environment or self.owner,
                "certificateRequest": self.request,
                "mode": "steal",
                **spec,
            },
        }
        document["spec"] = {key: value for key, value in document["spec"].items() if value is not None}
        return await self.client.create(document)

    async def change(self, name: str, **spec: Any) -> None:
        await self.client.patch("Session", name, {"spec": spec}, namespace=self.namespace)

    async def phase(self, name: str, *phases: str, seconds: float = 20) -> Object:
        found = await self.client.wait_for(
            "Session",
            name,
            lambda s: s.get("status", {}).get("phase") in phases,
            namespace=self.namespace,
            seconds=seconds,
        )
        return found["status"]

    async def end(self, name: str) -> None:
        await self.client.delete("Session", name, self.namespace)


async def steered(client: Client, namespace: str, workload: str = "deployment-checkout-8080") -> list[str] | None:
    """The sessions that the EnvoyFilter of a workload and port has sidecars steer; None where there is no such object."""
    found = await client.get("EnvoyFilter", f"hairpin-sessions-{workload}", namespace)
    if found is None:
        return None
    for patch in found["spec"]["configPatches"]:
        rules = patch["patch"]["value"]["typed_config" if "typed_config" in patch["patch"]["value"] else "typedConfig"]
        policies = rules.get("shadowRules", rules.get("shadow_rules", {})).get("policies", {})
        return sorted(policies)
    return []


async def steered_is(server: ApiServer, namespace: str, names: list[str]) -> bool:
    return await steered(server.client, namespace) == names


def authority_of(secret: Object) -> str:
    return base64.b64decode(secret["data"]["tls.crt"]).decode()
