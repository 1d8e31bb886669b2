"""`hairpin install` and `uninstall` on a real API server, and the manifests on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from hairpin.kubernetes.installation import DEVELOPER, SYSTEM, Installation, Published
from hairpin.kubernetes.manifests import BASE, OVERLAYS
from hairpin.kubernetes.objects import installation_objects
from hairpin.model.environment import Carrier, RoutingKey
from tests.support.builds import MissingError
from tests.support.cluster.api_server import api_server as running_api_server
from tests.support.cluster.binaries import helm
from tests.support.cluster.client import ApiError, documents

pytestmark = pytest.mark.timeout(300)  # the first test waits for the API server

MANIFESTS = Path(__file__).parents[2] / "manifests"
NOISE = {"Event", "Lease", "APIService", "FlowSchema", "PriorityLevelConfiguration", "ComponentStatus", "Endpoints"}
"""Kinds that Kubernetes itself writes all the time."""


@pytest.fixture(scope="module")
async def cluster():
    """An API server of its own: the tests take out what others may need."""
    try:
        async with running_api_server() as server:
            for name in ("istio-system", "shop", "billing"):
                await server.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            await server.install_istio_crds()
            yield server
    except MissingError as e:
        pytest.skip(str(e))


async def hairpin(cluster, *arguments, user="admin", code=0):
    """Run the command; its lines."""
    command = [sys.executable, "-m", "hairpin", *arguments, "--kubeconfig", str(cluster.kubeconfig(user))]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = (await process.communicate())[0].decode()
    assert process.returncode == code, output
    return output.splitlines()


@contextlib.asynccontextmanager
async def kubelet(cluster):
    """In a kubelet's place: every pod of hairpin's is ready at once."""

    async def work():
        while True:
            now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
            for pod in await cluster.client.list("Pod", labels="app.kubernetes.io/part-of=hairpin"):
                if not pod["status"].get("conditions") or ready["type"] not in str(pod["status"]["conditions"]):
                    where = {"namespace": pod["metadata"]["namespace"], "subresource": "status"}
                    status = {"phase": "Running", "podIP": "127.0.0.2", "conditions": [ready]}
                    with contextlib.suppress(ApiError):
                        await cluster.client.patch("Pod", pod["metadata"]["name"], {"status": status}, **where)
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        yield
        task.cancel()


async def everything(cluster):
    return {
        (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"])
        for found in await cluster.client.everything()
        if found["kind"] not in NOISE
    }


# Manifests


def by_name(found):
    named = {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in found}
    assert len(named) == len(found)
    return named


@pytest.mark.parametrize(
    ("folder", "installation"), [("base", BASE), *((f"overlays/{n}", i) for n, i in OVERLAYS.items())]
)
async def test_kustomize_makes_the_same_objects(cluster, folder, installation):
    built = (await cluster.kubectl("kustomize", str(MANIFESTS / folder))).stdout
    assert by_name(documents(built)) == by_name(installation_objects(installation))


FULL = Installation(
    namespaces=("shop", "billing"),
    image="example.com/hairpin:1",
    identities=("checkout", "payment"),
    agents=3,
    controllers=1,
    published=Published("{pod}.agents.example.com", 1, 2),
    trust_domain="example.com",
    cluster_domain="cluster.example",
    root_namespace="istio-config",
    routing_key=RoutingKey(Carrier.BAGGAGE, "env"),
)
VALUES = {
    "namespaces": ["shop", "billing"],
    "image": "example.com/hairpin:1",
    "identities": ["checkout", "payment"],
    "agents": 3,
    "controllers": 1,
    "publishedAddress": {"host": "{pod}.agents.example.com", "tunnelPort": 1, "egressPort": 2},
    "trustDomain": "example.com",
    "clusterDomain": "cluster.example",
    "rootNamespace": "istio-config",
    "routingKey": {"header": None, "baggage": "env"},
}


def chart(*arguments, values):
    command = [str(helm()), "template", "hairpin", str(MANIFESTS / "chart"), "--kube-version", "1.34.0", *arguments]
    return subprocess.run(
        [*command, "--values", "-"], input=json.dumps(values), text=True, capture_output=True, check=False
    )


def settled(found):
    """Without what may differ: how settings are quoted, and the digest that changes with them."""
    text = re.sub(r"hairpin\.dev/settings: \w+", "", yaml.safe_dump(found))
    found = yaml.safe_load(text)
    if "controller.yaml" in found.get("data", {}):
        found["data"]["controller.yaml"] = yaml.safe_load(found["data"]["controller.yaml"])
    return found


@pytest.mark.parametrize(
    ("installation", "values"), [(BASE, {"namespaces": ["shop"]}), (FULL, VALUES)], ids=["least", "all"]
)
async def test_the_chart_makes_the_same_objects(installation, values):
    try:
        rendered = await asyncio.to_thread(chart, values=values)
    except MissingError as e:
        pytest.skip(str(e))
    assert rendered.returncode == 0, rendered.stderr
    found, wanted = by_name(documents(rendered.stdout)), by_name(installation_objects(installation))
    assert found.keys() == wanted.keys()
    for key, document in wanted.items():
        assert settled(found[key]) == settled(document)


async def test_the_chart_wants_namespaces():
    try:
        rendered = await asyncio.to_thread(chart, values={})
    except MissingError as e:
        pytest.skip(str(e))
    assert "namespaces: is missing; name those whose workloads developers take over" in rendered.stderr


async def test_dry_run_prints_what_the_api_server_takes(cluster):
    command = [sys.executable, "-m", "hairpin", "install", "--namespace", "shop", "--identity", "default", "--dry-run"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = documents(printed)
    assert found == installation_objects(replace(BASE, identities=("default",)))
    # Dry, an object can't be in a namespace that is not there, nor of a kind.
    namespace, *rest = found
    await cluster.client.apply(namespace)
    applied = await cluster.client.apply(*rest, dry_run=True)
    assert [(d["kind"], d["metadata"]["name"]) for d in applied] == [(d["kind"], d["metadata"]["name"]) for d in rest]
    await cluster.client.delete("Namespace", SYSTEM)
    await cluster.client.wait_gone("Namespace", SYSTEM)


async def test_pods_are_restricted(cluster):
    namespace = await cluster.new_namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
    await cluster.client.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}}, namespace=namespace
    )
    templates = [
        d["spec"]["template"]
        for d in installation_objects(replace(BASE, identities=("checkout",)))
        if d["kind"] in ("Deployment", "StatefulSet")
    ]
    assert len(templates) == 3

    def pod(template):
        spec = {**template["spec"], "serviceAccountName": "x"}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "x"}, "spec": spec}

    for template in templates:
        [container] = (await cluster.client.create(pod(template), namespace=namespace, dry_run=True))["spec"][
            "containers"
        ]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        del template["spec"]["containers"][0]["securityContext"]["capabilities"]
        with pytest.raises(ApiError, match=r'violates PodSecurity "restricted:latest": unrestricted capabilities'):
            await cluster.client.create(pod(template), namespace=namespace, dry_run=True)
    await cluster.client.delete("Namespace", namespace)
    await cluster.client.wait_gone("Namespace", namespace)


# Install and uninstall


async def test_nothing_is_left(cluster):
    before = await everything(cluster)
    async with kubelet(cluster):
        lines = await hairpin(cluster, "install", "-n", "shop", "-n", "billing", "--identity", "default")
        assert lines[0].startswith("57 objects go to https://")
        assert lines[1] == "applied: hairpin in hairpin-system, agents in shop, billing"
        assert lines[-1] == "ready"
        installed = await everything(cluster)
        assert {("Pod", "shop", f"hairpin-agent-{number}") for number in (0, 1)} <= installed
        # Again, with another choice.
        lines = await hairpin(
            cluster, "install", "-n", "shop", "-n", "billing", "--identity", "default", "--agents", "1"
        )
        assert lines[-1] == "ready"
        assert ("Pod", "shop", "hairpin-agent-1") not in await everything(cluster)
        await fill(cluster)
        lines = await hairpin(cluster, "uninstall")
    assert await everything(cluster) - {("RoleBinding", "shop", "developers")} == before
    for said in (
        "removed 4 statefulsets",
        "removed 1 Session",
        "removed 2 envoyfilters",
        "removed CustomResourceDefinition sessions.hairpin.dev",
        "removed Namespace hairpin-system",
        "RoleBinding shop/developers is yours and stays; it gives nothing now: delete it",
    ):
        assert any(said in line for line in lines), lines
    assert re.fullmatch(r"\d+ objects removed; nothing of hairpin is left", lines[-1])
    await cluster.client.delete("RoleBinding", "developers", "shop")
    assert await hairpin(cluster, "uninstall") == ["nothing of hairpin was there"]


async def fill(cluster):
    """What people and the controller make of an installation."""
    await cluster.kubectl(
        *("create", "rolebinding", "developers", "-n", "shop", f"--clusterrole={DEVELOPER}", "--group=developers")
    )
    hairpins = {"apiVersion": "hairpin.dev/v1alpha1"}
    spec = {"owner": "alice", "target": {"name": "checkout"}, "environment": "alice"}
    async with cluster.client_of("alice") as alice:
        await alice.create({**hairpins, "kind": "Session", "metadata": {"name": "a"}, "spec": spec}, namespace="shop")
    ours = {"labels": {"app.kubernetes.io/part-of": "hairpin"}}
    filters = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter"}
    selector = {"workloadSelector": {"labels": {"app": "checkout"}}, "configPatches": []}
    await cluster.client.apply(
        {**hairpins, "kind": "Environment", "metadata": {"name": "alice"}, "spec": {}},
        {**hairpins, "kind": "EgressPolicy", "metadata": {"name": "default", "namespace": "shop"}, "spec": {}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hairpin-ca", "namespace": SYSTEM, **ours}},
        *(
            {**filters, "metadata": {"name": f"hairpin-{role}-x", "namespace": "shop", **ours}, "spec": selector}
            for role in ("plumbing", "sessions")
        ),
    )


async def test_a_namespace_less(cluster):
    before = await everything(cluster)
    await hairpin(cluster, "install", "-n", "shop", "--no-wait")
    least = await everything(cluster)
    await hairpin(cluster, "install", "-n", "shop", "-n", "billing", "--identity", "default", "--no-wait")
    ours = {"name": "hairpin-sessions-x", "namespace": "billing", "labels": {"app.kubernetes.io/part-of": "hairpin"}}
    theirs = {"name": "theirs", "namespace": "billing"}
    for metadata in (ours, theirs):
        filters = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": metadata}
        await cluster.client.apply({**filters, "spec": {"configPatches": []}})
    lines = await hairpin(cluster, "install", "-n", "shop", "--no-wait")
    assert "no longer served: billing" in lines
    assert "removed StatefulSet shop/hairpin-agent-as-default" in lines
    await cluster.client.wait_gone("StatefulSet", "hairpin-agent", namespace="billing")
    left = {"Pod", "ControllerRevision", "ReplicaSet", "EndpointSlice", "IPAddress"}  # go and come after their owners
    assert {found for found in await everything(cluster) if found[0] not in left} == {
        *(found for found in least if found[0] not in left),
        ("EnvoyFilter", "billing", "theirs"),
    }
    await hairpin(cluster, "uninstall")
    await cluster.client.delete("EnvoyFilter", "theirs", "billing")
    assert await everything(cluster) == before


async def test_a_half_that_is_gone_is_no_hindrance(cluster):
    before = await everything(cluster)
    await hairpin(cluster, "install", "-n", "shop", "--no-wait")
    for kind, name, namespace in (
        ("CustomResourceDefinition", "sessions.hairpin.dev", None),
        ("ClusterRole", "hairpin-controller", None),
        ("StatefulSet", "hairpin-agent", "shop"),
        ("Namespace", SYSTEM, None),
    ):
        await cluster.client.delete(kind, name, namespace)
    await hairpin(cluster, "uninstall")
    assert await everything(cluster) == before


async def test_a_namespace_that_is_not_ours_stays(cluster):
    await cluster.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
    lines = await hairpin(cluster, "uninstall")
    assert lines[0] == "namespace hairpin-system is not labelled as hairpin's and stays"
    assert await cluster.client.get("Namespace", SYSTEM)
    await cluster.client.delete("Namespace", SYSTEM)
    await cluster.client.wait_gone("Namespace", SYSTEM)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-n", "shpo"], "--namespace: there is no namespace 'shpo'; make it first, or name another"),
        (
            ["-n", "shop", "--root-namespace", "istio"],
            "--root-namespace: there is no namespace 'istio'; name the namespace of istiod's configuration",
        ),
        (
            ["-n", "shop", "--identity", "checkout"],
            "--identity: there is no service account 'checkout' in namespace shop; name one that each served namespace has",
        ),
    ],
    ids=str,
)
async def test_what_is_missing_is_said_before_anything_is_written(cluster, flags, message):
    before = await everything(cluster)
    [line] = await hairpin(cluster, "install", *flags, code=3)
    assert line == f"hairpin: {message}"
    assert await everything(cluster) == before


async def test_who_may_not_install_is_told_what_is_missing(cluster):
    await cluster.kubectl(
        *("create", "clusterrole", "looks", "--verb=get,list", "--resource=namespaces,deployments.apps"),
    )
    await cluster.kubectl("create", "clusterrolebinding", "looks", "--clusterrole=looks", "--user=mallory")
    lines = await hairpin(cluster, "install", "-n", "shop", user="mallory", code=1)
    assert lines[-1] == (
        'hairpin: Namespace hairpin-system is not yours to write: namespaces "hairpin-system" is forbidden: '
        'User "mallory" cannot patch resource "namespaces" in API group "" in the namespace "hairpin-system"; '
        "install as one who may, or give them what `hairpin install --dry-run` prints"
    )
    [line] = await hairpin(cluster, "uninstall", user="mallory", code=1)
    assert line.startswith("hairpin: to list sessions is not allowed to you: sessions.hairpin.dev is forbidden: User")
    await cluster.client.delete("ClusterRoleBinding", "looks")
    await cluster.client.delete("ClusterRole", "looks")


async def test_pods_that_do_not_come_up_are_told(cluster):
    lines = await hairpin(cluster, "install", "-n", "shop", "--timeout", "3", code=5)
    assert "waiting for Deployment hairpin-system/hairpin-controller: 0 of 2 ready" in lines
    assert re.fullmatch(
        r"hairpin: Deployment hairpin-system/hairpin-controller is not ready after 3 s: 0 of 2 ready.*; "
        r"mend that and install again: what is in place stays",
        lines[-1],
    )
    await hairpin(cluster, "uninstall")
