"""A namespace of a real mesh for tests that write EnvoyFilters by hand: a caller, a target, an agent.

The agent's Envoy has the real agent's listener for sidecars and its refusals; behind it, in place of tunnel and laptop, is an
echo server in the same pod. A session called `gone…` has no tunnel. Sessions called `grpc…` end at the echo server's gRPC port.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime as dt
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.bootstrap import agent_bootstrap
from agent.settings import AgentSettings, ControlPlane
from hairpin.envoy.config import Config, address, as_downstream, static_cluster
from hairpin.model.match import Match
from hairpin.model.match_text import parse_match
from hairpin.model.mesh import SocketAddress
from tests.support.cluster.client import Object
from tests.support.cluster.mesh import Cluster
from tests.support.cluster.pods import Pod, Response
from tests.support.mesh import eventually
from tests.support.netns import relay
from xds_server.delivery.istio.envoyfilter import IstioMesh, SteeredWorkload, plumbing_object, sessions_object
from xds_server.generate.steer import Claim, match_filter_name
from xds_server.model.cluster import Key

TARGET, LAPTOP = "target", "laptop"
HTTP, GRPC = 8080, 7070
ISTIO = IstioMesh()
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
COUNTERS = ("listener_added", "listener_modified", "listener_in_place_updated", "listener_removed")


@dataclass(slots=True)
class FilterMesh:
    """What tests ask of it."""

    cluster: Cluster
    namespace: str
    caller: Pod
    target: Pod
    agent: Pod
    claimed: dict[int, list[Claim]] = field(default_factory=dict)

    @property
    def workload(self) -> SteeredWorkload:
        return SteeredWorkload(kind="deployment", key=Key(self.namespace, TARGET), selector={"app": TARGET})

    def claim(self, name: str, match: str | Match = "", second: int = 0) -> Claim:
        """A session of this name; if nothing else is said, it wants `x-env: NAME`."""
        wanted = parse_match(match or f"header x-env={name}") if isinstance(match, str) else match
        return Claim(session=f"{name}.{self.namespace}", created=NOON + dt.timedelta(seconds=second), match=wanted)

    async def sessions(self, claims: Sequence[Claim], port: int = HTTP) -> Object:
        """Write the sessions of a port, and wait until the target's sidecar has them."""
        document = sessions_object(self.workload, port, claims, ISTIO)
        await self.cluster.client.apply(document)
        await self.has(claims, port)
        return document

    async def has(self, claims: Sequence[Claim], port: int = HTTP) -> None:
        async def judged() -> bool:
            return await self.policies(port) == {claim.session for claim in claims}

        await eventually(judged, f"{len(claims)} sessions are in the target's sidecar")

    async def policies(self, port: int = HTTP) -> set[str]:
        """The sessions that the target's sidecar judges by."""
        found = json.loads(await self.target.envoy("/config_dump?resource=ecds_filters")).get("configs", [])
        for entry in found:
            if entry["ecds_filter"]["name"] == match_filter_name(port):
                return set(entry["ecds_filter"]["typed_config"].get("shadow_rules", {}).get("policies", {}))
        return set()

    async def listeners(self, pod: Pod | None = None) -> dict[str, int]:
        """How often a sidecar's listeners have changed: each time, connections drain."""
        return {name: await (pod or self.target).stat(f"listener_manager.{name}") for name in COUNTERS}

    async def ask(
        self, env: str = "", *, pod: Pod | None = None, url: str = f"http://{TARGET}/", **more: Any
    ) -> Response:
        """One request, from the caller unless said otherwise."""
        headers = {**({"x-env": env} if env else {}), **more.pop("headers", {})}
        return await (pod or self.caller).request(url, headers=headers, **more)

    async def answered_by(self, who: str, env: str = "", **more: Any) -> None:
        """Wait until it is so, ten times in a row: callers keep connections to a listener that drains for a while."""

        async def so() -> bool:
            answers = [await self.ask(env, **more) for _ in range(10)]
            return all(answer.status == 200 and answer.who == who for answer in answers)

        await eventually(so, f"x-env {env!r} is answered by {who}")

    @contextlib.asynccontextmanager
    async def door(self, port: int) -> AsyncIterator[tuple[str, int]]:
        """An address of our own whose connections are the caller's, to the target's Service."""
        service = await self.cluster.client.get("Service", TARGET, self.namespace)
        assert service
        async with relay(self.caller.network, service["spec"]["clusterIP"], port) as reached:
            yield reached

    @contextlib.asynccontextmanager
    async def beside(self, *objects: Object) -> AsyncIterator[None]:
        """Objects of a user's, for the length of the block."""
        await self.cluster.client.apply(*objects, namespace=self.namespace)
        try:
            yield
        finally:
            for found in objects:
                await self.cluster.client.delete(found["kind"], found["metadata"]["name"], self.namespace)


@contextlib.asynccontextmanager
async def filter_mesh(cluster: Cluster, namespace: str) -> AsyncIterator[FilterMesh]:
    """The namespace, its pods ready, the plumbing in the target's sidecar."""
    await cluster.client.apply(*_objects(namespace))
    names = ("caller", TARGET, "hairpin-agent")
    try:
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(cluster.rolled_out("Deployment", name, namespace))
        pods = [await cluster.pod(namespace, f"app={name}") for name in names]
        mesh = FilterMesh(cluster, namespace, *pods)
        for port in (HTTP, GRPC):
            await cluster.client.apply(plumbing_object(mesh.workload, port, ISTIO))
        await eventually(lambda: _has_plumbing(mesh), "the plumbing is in the target's sidecar")
        yield mesh
    finally:
        await cluster.client.delete("Namespace", namespace)


async def _has_plumbing(mesh: FilterMesh) -> bool:
    dump = await mesh.target.envoy("/config_dump?resource=dynamic_listeners")
    return all(match_filter_name(port) in dump for port in (HTTP, GRPC))


def agents_envoy() -> Config:
    """The agent's listener for sidecars, as it is; clusters to the pod's echo server where tunnels would be."""
    nowhere = SocketAddress("127.0.0.1", 1)
    plane = ControlPlane(api="https://nowhere", xds=nowhere, authority=Path("/ca"), token_file=Path("/token"))
    settings = AgentSettings(
        name="agent",
        namespace="n",
        directory=Path("/run/agent"),
        control_plane=plane,
        steer=SocketAddress("0.0.0.0", HTTP),
        tunnel=nowhere,
        egress=nowhere,
        ready=nowhere,
    )
    listeners = agent_bootstrap(settings)["static_resources"]["listeners"]
    [listener] = [copy.deepcopy(found) for found in listeners if found["name"] == "steer"]
    manager = listener["filter_chains"][0]["filters"][-1]["typed_config"]
    manager.pop("access_log")
    [host] = manager["route_config"]["virtual_hosts"]
    [steered] = [route for route in host["routes"][:-1] if "typed_per_filter_config" not in route]  # no copies'
    for cluster in ("gone", "grpc"):
        own = copy.deepcopy(steered)
        own["match"]["headers"] = [{"name": "x-hairpin-session", "string_match": {"prefix": cluster}}]
        own["route"]["cluster"] = cluster
        host["routes"].insert(0, own)
    ports = {"session": 9000, "session-http2": 9000, "grpc": 9001, "gone": 1}
    clusters = [
        static_cluster(
            name, address(SocketAddress("127.0.0.1", port)), typed_extension_protocol_options=as_downstream()
        )
        for name, port in ports.items()
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _objects(namespace: str) -> list[Object]:
    labels = {"istio-injection": "enabled"}
    envoy = {
        "name": "agent",
        "image": "hairpin.test/proxyv2:1",
        "command": ["/usr/local/bin/envoy"],
        "args": ["--config-yaml", json.dumps(agents_envoy()), "--concurrency", "1", "--base-id", "7", "-l", "warning"],
    }
    laptop = _app(LAPTOP, 9000, 9001)
    http_ports = [{"name": "http", "port": 80, "targetPort": HTTP}, {"name": "grpc", "port": GRPC}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        *_deployment(
            namespace, "caller", [_app("caller", HTTP, GRPC)], [{"name": "http", "port": 80, "targetPort": HTTP}]
        ),
        *_deployment(namespace, TARGET, [_app(TARGET, HTTP, GRPC)], http_ports),
        *_deployment(namespace, "hairpin-agent", [envoy, laptop], [{"name": "tcp-steer", "port": HTTP}]),
    ]


def _app(name: str, http: int, grpc: int) -> Object:
    environment = {"PORT": http, "GRPC_PORT": grpc}
    return {
        "name": "app",
        "image": "hairpin.test/app:1",
        "args": [name],
        "env": [{"name": key, "value": str(value)} for key, value in environment.items()],
        "readinessProbe": {"tcpSocket": {"port": http}, "periodSeconds": 1},
    }


def _deployment(namespace: str, name: str, containers: list[Object], ports: list[Object]) -> list[Object]:
    metadata = {"name": name, "namespace": namespace}
    spec = {
        "serviceAccountName": name,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True},
        "containers": containers,
    }
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": name}, "ports": ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
        },
    ]
