"""The target's environment and files in a real mesh: who may exec, who may read ConfigMaps and Secrets, and who may neither."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.support.cluster.images import PYTHON
from tests.support.envoy import eventually
from tests.support.istio_mesh import SHOP

pytestmark = [pytest.mark.timeout(240)]

SECRET = b"p\xff\x00w"
RUN = ("run", "--env", "alice", "--target", "deployment/settled:web", "-n", SHOP)
TELL = """
import base64, json, os, time
root = os.environ.get("HAIRPIN_ROOT", "")
files = {}
for folder, _, names in os.walk(root) if root else ():
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "rb") as file:
            files[path[len(root):]] = [base64.b64encode(file.read()).decode(), oct(os.stat(path).st_mode & 0o7777)]
print(json.dumps({"env": dict(os.environ), "files": files}), flush=True)
if WAIT: time.sleep(120)
"""
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def binding(user, role):
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"target-{user}", "namespace": SHOP},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }


def workload(*more):
    mounts = [
        {"name": "settings", "mountPath": "/etc/settled"},
        {"name": "db", "mountPath": "/etc/db.pw", "subPath": "password"},
    ]
    container = {
        "name": "app",
        "image": "hairpin.test/app:1",
        "args": ["settled"],
        "ports": [{"name": "web", "containerPort": 8080}],
        "env": [
            {"name": "CONF", "value": "/etc/settled/a.yaml"},
            {"name": "MODE", "value": "target"},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "settled", "key": "plain"}}},
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            *more,
        ],
        "readinessProbe": {"httpGet": {"path": "/status", "port": "web"}, "periodSeconds": 1},
        "volumeMounts": mounts,
    }
    labels = {"app": "settled"}
    spec = {
        "serviceAccountName": "checkout",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True},
        "containers": [container],
        "volumes": [
            {"name": "settings", "configMap": {"name": "settled"}},
            {"name": "db", "secret": {"secretName": "settled"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "settled", "namespace": SHOP},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


@pytest.fixture(scope="module")
async def settled(mesh):
    """A workload with settings; alice may exec, bob read what its spec names."""
    client, metadata = mesh.cluster.client, {"name": "settled", "namespace": SHOP}
    secret = {"password": base64.b64encode(SECRET).decode(), "plain": base64.b64encode(b"open").decode()}
    await client.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a.yaml": "a: 1\n"}})
    await client.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret})
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    service = {"selector": {"app": "settled"}, "ports": ports}
    await client.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    await client.apply(workload())
    await client.apply(binding("alice", "hairpin-target-exec"))
    await client.apply(binding("bob", "hairpin-target-config"))
    await mesh.cluster.rolled_out("Deployment", "settled", SHOP)
    yield mesh
    for user in ("alice", "bob"):
        await client.delete("RoleBinding", f"target-{user}", SHOP)
    for kind in ("Deployment", "Service", "ConfigMap", "Secret"):
        await client.delete(kind, "settled", SHOP)


async def told(mesh, user, *flags):
    command = (PYTHON, "-c", TELL.replace("WAIT", "False"))
    run = await mesh.command(user, *RUN, *flags, "--", *command)
    assert run.process.returncode == 0, run.error
    return json.loads("".join(run.output)), "\n".join(run.errors)


def check_same(found):
    env, files = found["env"], found["files"]
    root = env["HAIRPIN_ROOT"]
    assert env["CONF"] == f"{root}/etc/settled/a.yaml"
    assert (env["PASSWORD"], env["ME"], env["MODE"]) == ("open", SHOP, "target")
    assert env["KUBERNETES_SERVICE_HOST"]
    assert env["PATH"].startswith("/mnt/bin")  # the laptop's
    assert env["HAIRPIN_SESSION"].startswith("settled-")
    assert base64.b64decode(files["/etc/settled/a.yaml"][0]) == b"a: 1\n"
    assert base64.b64decode(files["/etc/db.pw"][0]) == SECRET
    assert {mode for _, mode in files.values()} == {"0o600"}
    assert not Path(root).exists()


async def test_who_may_exec_gets_what_the_container_has(settled):
    found, error = await told(settled, "alice", "--env-from", "target", "--env-set", "MODE=mine", "--files", "rewrite")
    assert found["env"]["MODE"] == "mine"
    found["env"]["MODE"] = "target"
    check_same(found)
    assert re.search(r"environment: \d+ variables of pod settled-\S+, container app, by exec; local stay ", error)
    claims = base64.b64decode(found["files"][TOKEN][0]).split(b".")[1]
    subject = json.loads(base64.urlsafe_b64decode(claims + b"=="))["sub"]
    assert subject == f"system:serviceaccount:{SHOP}:checkout"


async def test_who_may_not_exec_gets_what_the_spec_says(settled):
    found, error = await told(settled, "bob")
    check_same(found)
    assert "by its spec: no right to exec" in error
    assert f"left out: token {TOKEN} (you may not read it)" in error
    assert TOKEN not in found["files"]
    refused = await settled.command("bob", *RUN, "--env-from", "target", "--", "true")
    assert refused.process.returncode == 2
    assert "--env-from" in refused.error


async def test_an_image_without_cat_is_read_from_its_spec(settled):
    """alice may exec, and may read no Secret: what an image without a shell leaves is named."""
    await settled.cluster.client.apply(workload({"name": "PATH", "value": "/no"}))
    await settled.cluster.rolled_out("Deployment", "settled", SHOP)
    found, error = await told(settled, "alice")
    assert found["env"]["MODE"] == "target"
    assert "PASSWORD" not in found["env"]
    assert "by its spec: its image has no sh and cat" in error
    assert "variable PASSWORD (Secret settled: you may not read it)" in error


async def test_a_kill_leaves_no_secret(settled):
    command = (PYTHON, "-c", TELL.replace("WAIT", "True"))
    async with settled.hairpin("bob", *RUN, "--", *command) as run:
        await eventually(lambda: run.output, what="it tells")
        root = Path(json.loads("".join(run.output))["env"]["HAIRPIN_ROOT"])
        folder = settled.cluster.host.inside(str(root.parent))
        assert (folder / "root/etc/db.pw").read_bytes() == SECRET
        run.signal(SIGKILL)
        await asyncio.wait_for(run.process.wait(), 10)
        await eventually(lambda: not folder.exists(), what="the folder is gone")
