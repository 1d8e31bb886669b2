"""A whole mesh on a machine of its own: a control plane, a node whose pods run, DNS, Istio; and a laptop beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.support.cluster import binaries, istio
from tests.support.cluster.api_server import ApiServer
from tests.support.cluster.binaries import MeshBinaries
from tests.support.cluster.client import Object
from tests.support.cluster.control_plane import Addresses, ControlPlane
from tests.support.cluster.folders import run_folder
from tests.support.cluster.host import BRIDGE, DNS, GATEWAY, LAPTOP_NAMESPACE, POD_CIDR, Host, check_host
from tests.support.cluster.images import images
from tests.support.cluster.laptop import Laptop
from tests.support.cluster.pods import Place, Pod
from tests.support.cluster.processes import Programs
from tests.support.cluster.users import ADMIN, Server

NETNS_PREFIX = "hp-"
NODE = "node0"
_AT = Addresses(ip=GATEWAY, api=6443, etcd=2379, etcd_peer=2380, controller_manager=10257)
_COREFILE = """\
cluster.local:53 {{
  bind {address}
  errors
  ready {address}:8181
  kubernetes {{
    kubeconfig {kubeconfig}
    ttl 1
  }}
}}
partner.test:53 {{
  bind {address}
  template IN A {{
    answer "{{{{ .Name }}}} 1 IN A {partner}"
  }}
  template ANY ANY {{
    rcode NOERROR
  }}
}}
.:53 {{
  bind {address}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""
"""Names below partner.test lead to PARTNER. No other name exists: there is no way out, and who asks is to hear so at once."""

PARTNER = "198.51.100.7"
"""Where nobody is: only a ServiceEntry for this address makes a sidecar lead somewhere."""


class Cluster(ApiServer):
    """What tests get. Beside the API server's: pods, requests from them, the laptop, and programs to kill by name.

    `programs` has etcd, kube-apiserver, kube-controller-manager, kube-proxy, coredns, istiod, node.
    """

    def __init__(self, host: Host, plane: ControlPlane, outside: Server) -> None:
        super().__init__(plane, outside)
        self.host = host
        self.laptop = Laptop(
            host, lambda user, namespace: self.inside_kubeconfig(user, namespace=namespace), plane.binaries.kubectl
        )

    def inside_kubeconfig(self, user: str = ADMIN, *, namespace: str = "default") -> Path:
        """A user's kubeconfig for programs on the mesh's machine, such as the laptop's."""
        return self.plane.users.kubeconfig(self.plane.server, user, namespace=namespace, place="inside")

    @property
    def outside(self) -> Place:
        """The laptop's place on the network: on the bridge, without a sidecar."""
        return Place(name="laptop", namespace="default", network=self.host.namespace(LAPTOP_NAMESPACE))

    async def pods(self, namespace: str, labels: str = "") -> list[Pod]:
        """The namespace's pods that have an address and are not being deleted, narrowed by a label selector."""
        return [
            self._pod(found)
            for found in await self.client.list("Pod", namespace, labels)
            if found.get("status", {}).get("podIP") and "deletionTimestamp" not in found["metadata"]
        ]

    async def pod(self, namespace: str, labels: str) -> Pod:
        """The first of them."""
        found = await self.pods(namespace, labels)
        if not found:
            raise LookupError(f"no pod {labels} in {namespace}")
        return found[0]

    async def rolled_out(self, kind: str, name: str, namespace: str, *, seconds: float = 90) -> Object:
        """Waits until all replicas of a Deployment or StatefulSet are there, new and ready.

        Raises:
            TimeoutError: with the pods' states and the ends of the logs.
        """
        try:
            return await self.client.wait_for(kind, name, _is_rolled_out, namespace=namespace, seconds=seconds)
        except TimeoutError as e:
            pods = await self.kubectl("get", "pods", "-n", namespace, "-o", "wide", check=False)
            events = await self.kubectl("get", "events", "-n", namespace, check=False)
            e.add_note(f"{pods.stdout}\n{events.stdout}\n{self.programs.tails()}")
            raise

    async def exec(self, pod: Pod, *command: str, container: str = "", user: str = ADMIN) -> str:
        """What a command printed, run in a container by the API server's exec."""
        chosen = ["-c", container] if container else []
        done = await self.kubectl("exec", "-n", pod.namespace, pod.name, *chosen, "--", *command, user=user)
        return done.stdout

    @contextlib.asynccontextmanager
    async def port_forward(self, pod: Pod, port: int, *, user: str = ADMIN) -> AsyncIterator[int]:
        """A loopback port that kubectl forwards to a pod's."""
        command = [str(self.plane.binaries.kubectl), "--kubeconfig", str(self.kubeconfig(user))]
        forward = ["port-forward", "-n", pod.namespace, f"pod/{pod.name}", f":{port}"]
        process = await asyncio.create_subprocess_exec(
            *command, *forward, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout
            assert process.stderr
            line = (await process.stdout.readline()).decode()
            if not line.startswith("Forwarding from "):
                raise AssertionError((await process.stderr.read()).decode())
            yield int(line.split(" -> ")[0].rpartition(":")[2])
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def kill_container(self, pod: Pod, container: str) -> None:
        """As `kill -9` of a container's first process; the node starts it again."""
        status = (await self.client.get("Pod", pod.name, pod.namespace) or {}).get("status", {})
        for found in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            if found["name"] == container and "running" in found["state"]:
                await asyncio.to_thread(self.host.run, "kill", "-KILL", found["containerID"].removeprefix("process://"))
                return
        raise LookupError(f"{container} does not run in {pod.name}")

    def _pod(self, found: Object) -> Pod:
        metadata, ip = found["metadata"], found["status"]["podIP"]
        name = NETNS_PREFIX + metadata["uid"]
        return Pod(
            name=metadata["name"],
            namespace=metadata["namespace"],
            network=self.host.namespace(name),
            ip=ip,
            object=found,
        )


def _is_rolled_out(found: Object) -> bool:
    spec, status = found["spec"], found.get("status", {})
    wanted = spec.get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    return seen and counts == [wanted] * 3


@contextlib.asynccontextmanager
async def cluster(*, say: Callable[[str], Any] = lambda _: None) -> AsyncIterator[Cluster]:
    """A mesh for the length of the block, with Istio ready and no application yet.

    Args:
        say: is told what is being done.

    Raises:
        MissingError: the machine lacks root, Go or a program.
    """
    check_host()
    say("building what is not built yet")
    control, programs = await asyncio.to_thread(lambda: (binaries.control_plane(), binaries.mesh()))
    with run_folder("hairpin-mesh-") as folder, Host(folder) as host, Programs(folder, prefix=host.enter) as running:
        plane = ControlPlane(folder, running, control, _AT, data=host.private / "etcd")
        with Programs(folder) as gates:
            port = await _gate(gates, host, _AT.api)
            made = Cluster(host, plane, Server(url=f"https://127.0.0.1:{port}", ca=plane.server.ca))
            try:
                await _started(made, programs, say)
                yield made
            finally:
                await made.client.close()


async def _gate(gates: Programs, host: Host, port: int) -> int:
    """The loopback port that leads to a port of the machine's."""
    script = Path(__file__).with_name("gate.py")
    gate = gates.start(f"gate-{port}", [sys.executable, "-I", "-S", script, host.network, GATEWAY, port])
    while not gate.log.read_text().endswith("\n"):
        if not gate.running:
            raise RuntimeError(gate.tail())
        await asyncio.sleep(0.02)
    return int(gate.log.read_text())


async def _started(made: Cluster, programs: MeshBinaries, say: Callable[[str], Any]) -> None:
    try:
        await _start(made, programs, say)
    except Exception as e:
        e.add_note(made.programs.tails())
        raise


async def _start(made: Cluster, programs: MeshBinaries, say: Callable[[str], Any]) -> None:
    say("etcd, kube-apiserver, kube-controller-manager")
    made.plane.start()
    await made.plane.ready(made.client)
    made.plane.start_controllers()
    say("kube-proxy, coredns, node")
    await _start_node(made, programs)
    say("istiod")
    await made.install_istio_crds()
    await made.client.apply(*istio.objects(programs.istio_source, GATEWAY))
    arguments = istio.arguments(made.inside_kubeconfig(), made.plane.folder, GATEWAY)
    made.programs.start("istiod", [programs.pilot_discovery, *arguments], env=istio.ENVIRONMENT)
    await made.client.wait_for("MutatingWebhookConfiguration", "istio-sidecar-injector", _has_ca)
    await made.client.wait_for("ConfigMap", "istio-ca-root-cert", bool, namespace="default")


async def _start_node(made: Cluster, programs: MeshBinaries) -> None:
    folder, kubeconfig = made.plane.folder, made.inside_kubeconfig()
    proxy = ["--proxy-mode=iptables", "--masquerade-all", f"--cluster-cidr={POD_CIDR}", f"--hostname-override={NODE}"]
    made.programs.start(
        "kube-proxy",
        [programs.kube_proxy, f"--kubeconfig={kubeconfig}", *proxy, "--conntrack-max-per-core=0"],
    )
    corefile = folder / "Corefile"
    corefile.write_text(_COREFILE.format(address=DNS, partner=PARTNER, kubeconfig=kubeconfig))
    made.programs.start("coredns", [programs.coredns, "-conf", corefile])
    image_file = folder / "images.json"
    image_file.write_text(json.dumps(images(programs), indent=2))
    certificate, key = made.plane.pki.server(NODE, [GATEWAY, NODE])
    flags = {
        "kubeconfig": kubeconfig,
        "name": NODE,
        "listen": f"{GATEWAY}:10250",
        "tls-cert": certificate,
        "tls-key": key,
        "bridge": BRIDGE,
        "gateway": GATEWAY,
        "pod-cidr": POD_CIDR,
        "netns-prefix": NETNS_PREFIX,
        "root": made.host.private / "node",
        "images": image_file,
        "dns": DNS,
        "cluster-domain": "cluster.local",
    }
    made.programs.start("node", [programs.node, *(f"--{name}={value}" for name, value in flags.items())])
    await made.client.wait_for("Node", NODE, bool)


def _has_ca(webhooks: Object) -> bool:
    return all(webhook["clientConfig"].get("caBundle") for webhook in webhooks["webhooks"])
