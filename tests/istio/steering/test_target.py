"""The target's environment and files in a real mesh: who may exec, who may read ConfigMaps and Secrets, and who may neither."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from pathlib import Path
from signal import SIGKILL

import pytest

from hairpin.kubernetes.api import connect
from hairpin.model.target import Target
from local_proxy.target.copies import write_copies
from local_proxy.target.read import Reader
from local_proxy.target.renew import keep_fresh
from tests.support.cluster.host import LAPTOP_UID
from tests.support.cluster.images import PYTHON
from tests.support.envoy import eventually
from tests.support.istio_mesh import SHOP
from tests.support.mesh import PATIENCE

pytestmark = [pytest.mark.timeout(240)]

SECRET = b"p\xff\x00w"
RUN = ("run", "--env", "alice", "--target", "deployment/settled:web", "-n", SHOP)
TELL = """
import base64, json, os, time
root = os.environ.get("HAIRPIN_ROOT", "")
files = {}
for folder, below, names in os.walk(root) if root else ():
    below[:] = [name for name in below if not name.startswith("..")]
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "rb") as file:
            files[path[len(root):]] = [base64.b64encode(file.read()).decode(), oct(os.stat(path).st_mode & 0o7777)]
own = {}
for path in PATHS:
    try:
        with open(path, "rb") as file: own[path] = base64.b64encode(file.read()).decode()
    except OSError: own[path] = None
who = [os.getuid(), os.getgid(), os.access("/etc/hosts", os.R_OK)]
print(json.dumps({"env": dict(os.environ), "files": files, "own": own, "who": who}), flush=True)
if WAIT: time.sleep(120)
"""
OWN = ("/etc/settled/a.yaml", "/etc/db.pw", "/var/run/secrets/kubernetes.io/serviceaccount/token")
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


ACCOUNT = f"system:serviceaccount:{SHOP}:checkout"
TOKENS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "tokens", "namespace": SHOP},
    "rules": [
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["checkout"], "verbs": ["create"]}
    ],
}


def subject(token):
    claims = token.split(b".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + b"=="))["sub"]


def binding(user, role, *, kind="ClusterRole", name=""):
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name or f"target-{user}", "namespace": SHOP},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
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


def program(*, wait):
    return TELL.replace("WAIT", str(wait)).replace("PATHS", str(OWN))


async def told(mesh, user, *flags):
    command = (PYTHON, "-c", program(wait=False))
    run = await mesh.command(user, *RUN, *flags, "--", *command)
    assert run.process.returncode == 0, run.error
    return json.loads("".join(run.output)), "\n".join(run.errors)


def check_same(found, *, mounted):
    """The same by exec and by the spec; files at their own paths, or under the root alone, where variables lead to."""
    env, files = found["env"], found["files"]
    root = env["HAIRPIN_ROOT"]
    assert env["CONF"] == ("/etc/settled/a.yaml" if mounted else f"{root}/etc/settled/a.yaml")
    own = {path: base64.b64decode(data) for path, data in found["own"].items() if data is not None and path != TOKEN}
    assert own == ({"/etc/settled/a.yaml": b"a: 1\n", "/etc/db.pw": SECRET} if mounted else {})
    assert found["who"] == [LAPTOP_UID, LAPTOP_UID, True]
    assert (env["PASSWORD"], env["ME"], env["MODE"]) == ("open", SHOP, "target")
    assert env["KUBERNETES_SERVICE_HOST"]
    assert env["PATH"].startswith("/mnt/bin")  # the laptop's
    assert env["HAIRPIN_SESSION"].startswith("settled-")
    assert base64.b64decode(files["/etc/settled/a.yaml"][0]) == b"a: 1\n"
    assert base64.b64decode(files["/etc/db.pw"][0]) == SECRET
    assert {mode for _, mode in files.values()} == {"0o600"}
    assert not Path(root).exists()


class Looking(Reader):
    """One that counts how often it was looked whether something has changed."""

    looks = 0

    async def marks(self):
        found = await super().marks()
        self.looks += 1
        return found


@pytest.mark.parametrize("files", ["rewrite", "mount"])
async def test_who_may_exec_gets_what_the_container_has(settled, files):
    found, error = await told(settled, "alice", "--env-from", "target", "--env-set", "MODE=mine", "--files", files)
    assert found["env"]["MODE"] == "mine"
    found["env"]["MODE"] = "target"
    check_same(found, mounted=files == "mount")
    assert re.search(r"environment: \d+ variables of pod settled-\S+, container app, by exec; local stay ", error)
    assert subject(base64.b64decode(found["files"][TOKEN][0])) == ACCOUNT
    assert found["own"][TOKEN] == (found["files"][TOKEN][0] if files == "mount" else None)


@pytest.mark.parametrize("files", ["auto", "rewrite"])
async def test_who_may_not_exec_gets_what_the_spec_says(settled, files):
    """Without an error only by `auto`: the token takes a right of its own. Connections are intercepted, so `auto` mounts."""
    flags = () if files == "auto" else ("--intercept", "off")  # as `auto` is then
    found, error = await told(settled, "bob", *flags)
    check_same(found, mounted=files == "auto")
    assert "by its spec: no right to exec" in error
    assert f"left out: token {TOKEN} (you may not read it)" in error
    assert TOKEN not in found["files"]
    if files == "auto":
        assert re.search(r"files: \d, for the command alone at /etc/db.pw, /etc/settled, /run/secrets/", error)
        for flag, value in (("--env-from", "target"), ("--files", "mount")):
            refused = await settled.command("bob", *RUN, flag, value, "--", "true")
            assert refused.process.returncode == 2
            assert f"{flag}: '{value}' can't be had whole: token {TOKEN} (you may not read it)" in refused.error


async def test_who_may_create_tokens_gets_the_pods_without_exec_and_a_new_one_before_it_ends(settled, tmp_path):
    """By the clock that the loop is given an hour is over; the pod's token lives that long."""
    await settled.cluster.client.apply(TOKENS, binding("bob", "tokens", kind="Role", name="tokens-bob"))
    found, error = await told(settled, "bob", "--files", "mount")
    assert "left out" not in error
    assert subject(base64.b64decode(found["own"][TOKEN])) == ACCOUNT
    ahead = [0.0]
    async with connect(kubeconfig=str(settled.cluster.kubeconfig("bob"))) as api:
        reader = Looking(api, SHOP, Target.parse("deployment/settled:web"), container=None, files=True)
        first = await reader.read()
        write_copies(first, tmp_path)
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(
                keep_fresh(
                    reader,
                    first,
                    tmp_path,
                    pytest.fail,
                    clock=lambda: time.time() + ahead[0],
                    look_seconds=0.1,
                )
            )
            await eventually(lambda: reader.looks, what="it has looked for the first time")
            ahead[0] = 3600.0
            token = tmp_path / TOKEN[1:]
            await eventually(lambda: token.read_bytes() != first.files[TOKEN].data, what="the token is a new one")
            renewing.cancel()
    assert subject(token.read_bytes()) == ACCOUNT
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.read_text()}}
    async with connect(kubeconfig=str(settled.cluster.kubeconfig())) as admin:
        answer = await admin.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=review)
    assert answer["status"]["authenticated"]
    await settled.cluster.client.delete("RoleBinding", "tokens-bob", SHOP)


async def test_a_config_map_that_changes_is_followed_in_the_run(settled, tmp_path):
    metadata = {"name": "settled", "namespace": SHOP}
    changed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a.yaml": "a: 2\n"}}
    async with connect(kubeconfig=str(settled.cluster.kubeconfig("bob"))) as api:
        reader = Looking(api, SHOP, Target.parse("deployment/settled:web"), container=None, files=True)
        first = await reader.read()
        write_copies(first, tmp_path)
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(keep_fresh(reader, first, tmp_path, pytest.fail, look_seconds=0.1))
            await eventually(lambda: reader.looks, what="it has looked for the first time")
            await settled.cluster.client.apply(changed)
            file = tmp_path / "etc/settled/a.yaml"
            try:
                await eventually(lambda: file.read_bytes() == b"a: 2\n", what="the file is the new one")
            finally:
                renewing.cancel()
                await settled.cluster.client.apply({**changed, "data": {"a.yaml": "a: 1\n"}})


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
    command = (PYTHON, "-c", program(wait=True))
    async with settled.hairpin("bob", *RUN, "--", *command) as run:
        await eventually(lambda: run.output, what="it tells")
        root = Path(json.loads("".join(run.output))["env"]["HAIRPIN_ROOT"])
        folder = settled.cluster.host.inside(str(root.parent))
        assert (folder / "root/etc/db.pw").read_bytes() == SECRET
        run.signal(SIGKILL)
        await asyncio.wait_for(run.process.wait(), PATIENCE)
        await eventually(lambda: not folder.exists(), what="the folder is gone")
