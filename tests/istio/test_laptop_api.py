"""The laptop's sessions as objects: a real API server with its roles and admission policy, and the real controller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import sys

import pytest
import yaml

from hairpin.certificate_reading import certificate_names
from hairpin.certificates import new_key_and_request
from hairpin.errors import ConflictError, HairpinError, NotFoundError, UnavailableError
from hairpin.kubernetes.api import connect
from hairpin.kubernetes.installation import Installation
from hairpin.kubernetes.rbac import developer_role
from hairpin.model.session import Phase, SessionSpec
from hairpin.model.target import Target
from local_proxy import kubernetes_sessions
from local_proxy.control_planes import Connection, KubernetesCluster, control_plane
from local_proxy.session_store import SessionChanged, SessionEnded, WatchLost
from tests.support.builds import MissingError
from tests.support.cluster.api_server import api_server as running_api_server
from tests.support.controller import (
    FakeAgent,
    controller,
    controller_api,
    install,
    reporting,
    serve_namespace,
    workload,
)
from tests.support.envoy import eventually

SESSION = "Session"


@pytest.fixture(scope="module")
async def bare():
    """An API server of its own, without hairpin."""
    try:
        async with running_api_server() as server:
            yield server
    except MissingError as e:
        pytest.skip(str(e))


async def test_a_cluster_without_hairpin_is_told_with_what_installs_it(bare):
    async with store(bare, "admin", "default") as sessions:
        with pytest.raises(
            NotFoundError, match=r"hairpin is not installed in the cluster at https://.* `hairpin install`"
        ):
            await sessions.list()
        with pytest.raises(NotFoundError, match="hairpin is not installed"):
            await sessions.create(spec("default"))


@pytest.fixture(scope="module")
async def installed(bare):
    await install(bare)
    await bare.client.apply(developer_role(Installation(namespaces=())))
    return bare


@pytest.fixture
async def shop(installed):
    """A namespace with checkout, where alice and bob are developers; served by a controller with one agent."""
    name = await new_shop(installed)
    async with controller_api(installed) as api, controller(api, name) as replica:
        async with reporting(FakeAgent(installed, name), replica) as agent:
            yield Shop(name, agent)
    await installed.client.delete("Namespace", name)


class Shop:
    def __init__(self, namespace, agent):
        self.namespace, self.agent = namespace, agent


async def new_shop(server):
    name = await server.new_namespace()
    for user in ("alice", "bob"):
        role = ("--clusterrole=hairpin-developer", f"--user={user}")
        await server.kubectl("create", "rolebinding", user, "-n", name, *role)
    await serve_namespace(server, name)
    await workload(server, name, "checkout")
    return name


@contextlib.asynccontextmanager
async def store(server, user, namespace, **connection):
    async with cluster_of(server, user, namespace, **connection) as cluster, cluster.open() as sessions:
        yield sessions


@contextlib.asynccontextmanager
async def cluster_of(server, user, namespace, **connection):
    flags = Connection(kubeconfig=str(server.kubeconfig(user, namespace=namespace)), **connection)
    async with control_plane(flags) as cluster:
        yield cluster


def spec(namespace, *, environment="alice", request=None, **fields):
    target = fields.pop("target", "deployment/checkout")
    return SessionSpec(
        target=Target.parse(target, namespace), environment=environment,
        certificate_request=request or new_key_and_request()[1], **fields,
    )  # fmt: skip


async def test_a_session_from_its_claim_to_its_end(installed, shop):
    async with store(installed, "alice", shop.namespace) as sessions:
        session = await sessions.create(spec(shop.namespace))
        assert session.name.startswith("checkout-alice-")
        assert session.owner == "alice"
        assert session.id == f"{session.name}.{shop.namespace}"
        assert certificate_names(session.status.certificate).dns == (session.id,)
        assert [(a.name, a.host, a.tunnel_port) for a in session.status.agents] == [("hairpin-agent-0", "", 9443)]
        assert [known.name for known in await sessions.list()] == [session.name]

        assert (await sessions.update(session.name, local_port=8080)).spec.local_port == 8080
        shop.agent.report(session.id)
        await installed.client.wait_for(
            SESSION, session.name, lambda s: s["status"]["phase"] == "Active", namespace=shop.namespace
        )
        assert (await sessions.get(session.name)).status.tunnels == ("hairpin-agent-0",)
        assert (await sessions.update(session.name, local_port=None)).spec.local_port is None
        await sessions.delete(session.name)
        await sessions.delete(session.name)
        assert await sessions.list() == []


async def test_a_renewed_certificate_is_of_the_new_key(installed, shop):
    async with store(installed, "alice", shop.namespace) as sessions:
        first = await sessions.create(spec(shop.namespace))
        for _ in range(2):
            renewed = await sessions.update(first.name, certificate_request=new_key_and_request()[1])
            assert renewed.status.certificate != first.status.certificate
            assert kubernetes_sessions._is_certified(renewed)
            first = renewed


async def test_what_someone_holds_is_refused_by_their_name_and_nothing_of_the_claim_stays(installed, shop):
    async with store(installed, "alice", shop.namespace) as alices, store(installed, "bob", shop.namespace) as bobs:
        held = await alices.create(spec(shop.namespace))
        with pytest.raises(ConflictError, match="alice"):
            await bobs.create(spec(shop.namespace))
        assert [session.name for session in await bobs.list()] == [held.name]
        with pytest.raises(HairpinError, match=r"^the session can not be ended by you: it is alice’s"):
            await bobs.delete(held.name)
        with pytest.raises(HairpinError, match=r"^the session can not be changed by you"):
            await bobs.update(held.name, local_port=1)


async def test_a_target_that_does_not_exist_is_told_as_the_controller_says(installed, shop):
    async with store(installed, "alice", shop.namespace) as sessions:
        with pytest.raises(NotFoundError, match=r"chekout.*checkout"):
            await sessions.create(spec(shop.namespace, target="deployment/chekout"))
        assert await sessions.list() == []


async def test_a_field_that_the_schema_refuses_is_told_without_the_servers_preamble(installed, shop):
    async with store(installed, "alice", shop.namespace) as sessions:
        with pytest.raises(HairpinError, match=r"^spec\.leaseSeconds: Invalid value") as told:
            await sessions.create(spec(shop.namespace, lease_seconds=90_000))
        assert told.value.exit_code == 2


async def test_who_has_no_role_is_told_which_one_it_takes(installed, shop):
    async with store(installed, "mallory", shop.namespace) as sessions:
        with pytest.raises(
            HairpinError,
            match=r'"mallory" cannot list resource "sessions".*ClusterRole hairpin-developer.*' + shop.namespace,
        ):
            await sessions.list()


async def test_a_controller_that_does_not_answer_is_told_and_the_claim_taken_back(installed, monkeypatch):
    monkeypatch.setattr(kubernetes_sessions, "ANSWER_SECONDS", 0.5)
    name = await new_shop(installed)
    async with store(installed, "alice", name) as sessions:
        with pytest.raises(
            UnavailableError,
            match=r"the control plane has not answered for .*: is the controller running in hairpin-system",
        ):
            await sessions.create(spec(name))
        assert await sessions.list() == []


async def test_a_claim_that_is_broken_off_leaves_nothing(installed, monkeypatch):
    name = await new_shop(installed)  # nobody serves it: the claim waits
    made, certified = asyncio.Event(), kubernetes_sessions.KubernetesSessions._certified

    async def noted(self, document):
        made.set()
        return await certified(self, document)

    monkeypatch.setattr(kubernetes_sessions.KubernetesSessions, "_certified", noted)
    async with store(installed, "alice", name) as sessions:
        async with asyncio.TaskGroup() as tasks:
            claiming = tasks.create_task(sessions.create(spec(name)))
            # Before the API server has answered, nobody knows the name: `Link` waits for it.
            await made.wait()
            assert len(await sessions.list()) == 1
            claiming.cancel()
        assert await sessions.list() == []


async def test_what_becomes_of_a_session_is_followed_to_its_end(installed, shop):
    async with store(installed, "alice", shop.namespace) as sessions:
        session = await sessions.create(spec(shop.namespace))
        seen = []
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(collect(sessions.follow(session.name), seen))
            await eventually(lambda: seen, what="its state comes first")
            shop.agent.report(session.id)
            await eventually(lambda: seen[-1].session.status.phase is Phase.READY, what="the tunnel is told")
            await installed.client.delete(SESSION, session.name, shop.namespace)
            await following
        assert isinstance(seen[0], SessionChanged)
        assert isinstance(seen[-1], SessionEnded)
        with pytest.raises(NotFoundError):
            await anext(sessions.follow(session.name))


async def test_another_session_of_its_name_is_not_ours(installed, shop):
    async with store(installed, "alice", shop.namespace) as sessions:
        session = await sessions.create(spec(shop.namespace))
        found = await installed.client.get(SESSION, session.name, shop.namespace)
        await installed.client.delete(SESSION, session.name, shop.namespace)
        again = {"apiVersion": found["apiVersion"], "kind": SESSION, "spec": {**found["spec"], "owner": "admin"}}
        await installed.client.create({**again, "metadata": {"name": session.name, "namespace": shop.namespace}})
        with pytest.raises(NotFoundError):
            await anext(sessions.follow(session.name))
        await sessions.delete(session.name)
        assert await installed.client.get(SESSION, session.name, shop.namespace)


async def test_an_api_server_that_goes_away_is_told_once_and_followed_again(installed, shop):
    async with store(installed, "alice", shop.namespace) as sessions:
        session = await sessions.create(spec(shop.namespace))
        seen = []
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(collect(sessions.follow(session.name), seen))
            await eventually(lambda: seen, what="its state comes first")
            installed.programs["kube-apiserver"].kill()
            await eventually(lambda: isinstance(seen[-1], WatchLost), what="the loss is told")
            installed.programs.again("kube-apiserver")
            await eventually(lambda: isinstance(seen[-1], SessionChanged), what="it is followed again", seconds=40)
            following.cancel()
        assert sum(isinstance(event, WatchLost) for event in seen) == 1


async def collect(events, seen):
    async for event in events:
        seen.append(event)


# Kubeconfigs


async def test_a_client_certificate_says_who_we_are(installed):
    kubeconfig = installed.certificate_kubeconfig("dora", namespace="kube-public")
    async with control_plane(Connection(kubeconfig=str(kubeconfig))) as cluster:
        assert (await cluster.user(), cluster.namespace) == ("dora", "kube-public")
        assert cluster.title == f"context test ({installed.server.url}), namespace kube-public"


async def test_exec_plugins_contexts_and_token_files(installed, tmp_path):
    document = yaml.safe_load(installed.kubeconfig("alice").read_text())
    token = document["users"][0]["user"]["token"]
    plugin, count = tmp_path / "plugin", tmp_path / "count"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token},
    }  # fmt: skip
    plugin.write_text(
        f"#!{sys.executable}\nprint('''{json.dumps(credential)}''')\nopen({str(count)!r}, 'a').write('x')\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "token").write_text(installed.plane.users.tokens["bob"])
    execute = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    document["users"] = [
        {"name": "plugin", "user": {"exec": execute}},
        {"name": "file", "user": {"tokenFile": str(tmp_path / "token")}},
    ]
    document["contexts"] = [
        {"name": "one", "context": {"cluster": "test", "user": "plugin", "namespace": "team-a"}},
        {"name": "two", "context": {"cluster": "test", "user": "file"}},
    ]
    document["current-context"] = "one"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    found = {}
    for context, namespace in ((None, None), ("two", None), ("two", "team-b")):
        async with control_plane(
            Connection(kubeconfig=str(kubeconfig), context=context, namespace=namespace)
        ) as cluster:
            found[context, namespace] = (cluster.api.context, await cluster.user(), cluster.namespace)
    assert found == {
        (None, None): ("one", "alice", "team-a"),
        ("two", None): ("two", "bob", "default"),
        ("two", "team-b"): ("two", "bob", "team-b"),
    }
    assert count.read_text() == "x"


async def test_a_token_that_is_not_known_is_told_with_what_helps(installed, tmp_path):
    document = yaml.safe_load(installed.kubeconfig("alice").read_text())
    document["users"][0]["user"] = {"token": "old"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    async with control_plane(Connection(kubeconfig=str(tmp_path / "kubeconfig"))) as cluster:
        assert isinstance(cluster, KubernetesCluster)
        async with cluster.open() as sessions:
            with pytest.raises(HairpinError, match=r"does not accept the credentials.*log in again"):
                await sessions.list()


async def test_the_command_lists_and_ends_sessions(installed, shop):
    kubeconfig = str(installed.kubeconfig("alice", namespace=shop.namespace))
    async with store(installed, "alice", shop.namespace) as mine, store(installed, "bob", shop.namespace) as bobs:
        # No tunnel keeps them: commands take their time.
        session = await mine.create(spec(shop.namespace, lease_seconds=120))
        other = await bobs.create(spec(shop.namespace, environment="bob", lease_seconds=120))
    code, out, err = await hairpin("sessions", "--kubeconfig", kubeconfig)
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["NAME", session.name, other.name])
    assert "environment alice" in out
    assert err == f"context test ({installed.server.url}), namespace {shop.namespace}\n"
    code, _, err = await hairpin("sessions", "-A", "--kubeconfig", kubeconfig)
    assert code == 1
    assert "cannot list" in err
    admins = str(installed.kubeconfig())
    code, out, _ = await hairpin("sessions", "-A", "--kubeconfig", admins)
    assert [line.split()[:2] for line in out.splitlines() if shop.namespace in line.split()[0]] == [
        [shop.namespace, session.name], [shop.namespace, other.name],
    ]  # fmt: skip
    code, out, _ = await hairpin("stop", "--all", "--kubeconfig", kubeconfig)
    assert (code, out) == (0, f"session {session.name} ended; its requests are the cluster's again\n")
    code, _, err = await hairpin("stop", other.name, "--kubeconfig", kubeconfig)
    assert code == 1
    assert "it is bob’s" in err


async def hairpin(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hairpin", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_connect_is_the_same_for_all(installed):
    async with connect(kubeconfig=str(installed.kubeconfig("alice", namespace="shop"))) as api:
        assert (api.context, api.namespace) == ("test", "shop")
