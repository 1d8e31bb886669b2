"""A shop in a real Istio mesh with hairpin installed, and `hairpin run` on a laptop beside it: `TestMesh`'s way of asking."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, Signals
from typing import Any

import aiohttp
import psutil

from hairpin.kubernetes.installation import CONTROLLER, SYSTEM
from hairpin.model.mesh import AGENT
from tests.support.cluster.client import Object
from tests.support.cluster.images import PYTHON
from tests.support.cluster.mesh import Cluster
from tests.support.cluster.pods import Place, Pod
from tests.support.mesh import Run, eventually
from tests.support.netns import relay

SHOP = "shop"
_STEERED = "checkout:http", "checkout:grpc", "inventory"
APPLICATIONS = Path(__file__).parents[1] / "istio" / "apps"
_SLICES = "discovery.k8s.io/v1/EndpointSlice"
_FOLLOWED_SECONDS = 90.0
_IN_A_ROW = 8
"""Requests that are spread over the replicas of a service: that all went to one of two has a chance of 1 in 128."""
Answer = dict[str, Any]


def developers(namespace: str, name: str = "developers") -> Object:
    """The binding by which the group of alice, bob and carol may hold sessions in a namespace."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "hairpin-developer"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "developers"}],
    }


DEVELOPERS = developers(SHOP)


class LaptopRun(Run):
    """A program on the laptop. What was started is what enters its namespaces; the program is a child of that."""

    @property
    def pid(self) -> int:
        """The program's, seen from outside."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if children := psutil.Process(self.process.pid).children():
                return children[0].pid
        return self.process.pid

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def end(self, number: Signals = SIGINT) -> int:
        """End it by a signal, and wait."""
        if self.process.returncode is None:
            # nsenter stops itself when the program stops, and reaps nobody until someone wakes it.
            self.process.send_signal(SIGCONT)
            self.signal(number)
        return await self.ended()


class IstioMesh:
    """What tests ask of it.

    Args:
        cluster: where hairpin and the shop are up.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @contextlib.asynccontextmanager
    async def hairpin(
        self,
        user: str,
        *arguments: str,
        namespace: str = SHOP,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (PYTHON, "-m", "hairpin"),
    ) -> AsyncIterator[LaptopRun]:
        """`hairpin` with these arguments on the laptop, as this developer; ended with the block."""
        command = self.cluster.laptop.command(*program, *arguments, user=user, namespace=namespace, env=environment)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        run = LaptopRun(process)
        async with run.reading():
            try:
                yield run
            finally:
                with contextlib.suppress(TimeoutError):
                    await run.end()
                run.signal(SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def command(self, user: str, *arguments: str, **more: Any) -> LaptopRun:
        """`hairpin` run to its end."""
        async with self.hairpin(user, *arguments, **more) as run:
            await run.ended()
        return run

    @contextlib.asynccontextmanager
    async def laptop(
        self,
        user: str,
        env: str | None,
        *flags: str,
        target: str = "checkout:http",
        namespace: str = SHOP,
        following: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> AsyncIterator[LaptopRun]:
        """`hairpin run` of the shop's own program, once it says that requests come there."""
        program = [PYTHON, "-m", "tests.support.cluster.app", f"laptop of {user}", *([following] if following else [])]
        chosen = ["--env", env] if env else []
        arguments = ["run", *chosen, "--target", target, "-n", namespace, *flags, "--", *program]
        variables = {"PORT": "0", "GRPC_PORT": "0", **(environment or {})}
        async with self.hairpin(user, *arguments, namespace=namespace, environment=variables) as run:
            await run.said("takes the requests")
            if env:
                # Said when the rule is in the API server; istiod has to bring it to the sidecars.
                await self.answered_by(f"laptop of {user}", env, host=_service(target))
            yield run

    async def caller(self, name: str = "frontend", namespace: str = SHOP) -> Place:
        """A pod of the shop's to ask from."""
        return await self.cluster.pod(namespace, f"app={name}")

    async def ask(
        self,
        environment: str | None = None,
        *,
        host: str = "checkout",
        path: str = "/",
        caller: str = "frontend",
        namespace: str = SHOP,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request from a pod of the shop's, through its sidecar."""
        sent = {**({"x-env": environment} if environment else {}), **(headers or {})}
        place = await self.caller(caller, namespace)
        response = await place.request(f"http://{host}{path}", method=method, headers=sent, body=body)
        assert response.status == 200, f"{response.status}: {response.text}"
        answer: Answer = response.json
        return answer | {"response_headers": dict(response.headers)}

    async def answered_by(self, who: str, environment: str | None, **more: Any) -> None:
        """Wait until requests of this environment are answered by `who`, by whichever replica's sidecar they come."""

        async def so() -> bool:
            found = Counter([(await self.ask(environment, **more))["who"] for _ in range(_IN_A_ROW)])
            assert set(found) == {who}, found
            return True

        await eventually(so, f"requests of {environment} are answered by {who}")

    @contextlib.asynccontextmanager
    async def entry(self, service: str = "checkout", port: int = 80) -> AsyncIterator[tuple[str, int]]:
        """An address of our own whose connections are made from a pod of the shop's to a Service."""
        place = await self.caller()
        found = await self.cluster.client.get("Service", service, SHOP)
        async with relay(place.network, found["spec"]["clusterIP"], port) as address:
            yield address

    @contextlib.asynccontextmanager
    async def traffic(
        self,
        environment: str | None = None,
        *,
        host: str = "checkout",
        path: str = "/",
        caller: str = "frontend",
        method: str = "GET",
        pause: float = 0.02,
    ) -> AsyncIterator[Counter[str]]:
        """One request after the other on a connection kept open, while the block lasts: how many were answered by whom.

        What was no answer is counted too, under what it was.
        """
        counts: Counter[str] = Counter()
        headers = {"x-env": environment} if environment else {}
        place, over = await self.caller(caller), asyncio.Event()

        async def one(session: aiohttp.ClientSession) -> str:
            try:
                async with session.request(method, f"http://{host}{path}", headers=headers) as response:
                    text = await response.text()
                    return (
                        str(json.loads(text)["who"])
                        if response.status == 200
                        else f"{response.status}: {text[:80]} {dict(response.headers)}"
                    )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"

        async def on() -> None:
            async with place.session() as session:
                while not over.is_set():
                    counts[await one(session)] += 1
                    await asyncio.sleep(pause)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(on())
            try:
                yield counts
            finally:
                over.set()


def _service(target: str) -> str:
    """The Service behind a target of the shop's: `deployment/checkout-alice:8080` is one of checkout's."""
    name = target.rpartition("/")[2].partition(":")[0]
    return name.partition("-")[0]


async def applications(cluster: Cluster) -> None:
    """The shop of `tests/istio/apps`, ready."""
    await cluster.client.apply(*sorted(APPLICATIONS.glob("*.yaml"), reverse=True))
    for deployment in await cluster.client.list("Deployment", SHOP):
        await cluster.rolled_out("Deployment", deployment["metadata"]["name"], SHOP)


async def install(cluster: Cluster, *flags: str, namespaces: Sequence[str] = (SHOP,)) -> None:
    """`hairpin install` by an operator, from outside of the cluster.

    Raises:
        AssertionError: it failed, with what it said.
    """
    chosen = [part for namespace in namespaces for part in ("--namespace", namespace)]
    await operator(cluster, "install", *chosen, "--image", "hairpin", *flags)
    await followed(cluster, SYSTEM, CONTROLLER)
    for namespace in namespaces:
        await followed(cluster, namespace, AGENT)


async def enable(cluster: Cluster) -> None:
    """The plumbing of what tests steer in the shop: by a command for each, side by side, since half of one's time is waiting."""
    async with asyncio.TaskGroup() as tasks:
        for target in _STEERED:
            tasks.create_task(operator(cluster, "enable", target, "-n", SHOP))


async def followed(cluster: Cluster, namespace: str, name: str) -> None:
    """Wait until a Service leads to the pods that there are. After an API server's death the controller manager, which writes that
    down, may need half a minute to see again.
    """
    service = await cluster.client.get("Service", name, namespace)
    assert service is not None
    labels = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())

    async def so() -> bool:
        pods = await cluster.client.list("Pod", namespace, labels)
        there = {pod["status"].get("podIP") for pod in pods if not pod["metadata"].get("deletionTimestamp")}
        slices = await cluster.client.list(_SLICES, namespace, f"kubernetes.io/service-name={name}")
        ready = {
            address
            for found in slices
            for endpoint in found["endpoints"] or ()
            for address in endpoint["addresses"]
            if endpoint["conditions"].get("ready")
        }
        return bool(there) and ready == there

    await eventually(so, f"Service {name} of {namespace} leads to its pods", seconds=_FOLLOWED_SECONDS)


async def drained(pods: Sequence[Pod]) -> None:
    """Wait until no sidecar drains connections of what its listeners were before. Then those that are left are closed, and a request
    that a caller's sidecar has just put on one of them ends with 503, with hairpin or without.
    """
    names = "total_filter_chains_draining", "total_listeners_draining"

    async def so() -> bool:
        return not any([await pod.stat(f"listener_manager.{name}") for pod in pods for name in names])

    await eventually(so, "sidecars have drained what their listeners were before")


async def operator(cluster: Cluster, *arguments: str) -> str:
    """A command of hairpin's with the administrator's kubeconfig: what it printed."""
    command = [sys.executable, "-m", "hairpin", *arguments, "--kubeconfig", str(cluster.kubeconfig())]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode() + cluster.programs.tails()
    return output.decode()
