"""The harness itself: what it claims to bring up is real."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from pathlib import Path

import pytest

from tests.support.cluster.api_server import ApiServer
from tests.support.cluster.client import ApiError
from tests.support.cluster.folders import run_folder
from tests.support.mesh import eventually


def _deployment(replicas: int) -> dict:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


class TestApiServer:
    async def test_controllers_make_pods_of_a_deployment(self, api_server: ApiServer, namespace: str) -> None:
        await api_server.client.apply(_deployment(2), namespace=namespace)
        await api_server.client.wait_for(
            "Deployment", "web", lambda d: d.get("status", {}).get("replicas") == 2, namespace=namespace
        )
        pods = await api_server.client.list("Pod", namespace, labels="app=web")
        assert len(pods) == 2
        # Admission of service accounts is on.
        assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"default"}
        assert all("projected" in volume for pod in pods for volume in pod["spec"]["volumes"])

    async def test_a_developer_may_do_what_a_role_allows_and_nothing_else(
        self, api_server: ApiServer, namespace: str
    ) -> None:
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"}}
        subject = {"kind": "Group", "name": "developers", "apiGroup": "rbac.authorization.k8s.io"}
        reference = {"kind": "Role", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}
        await api_server.client.apply(
            {**role, "kind": "Role", "rules": [rule]},
            {**role, "kind": "RoleBinding", "subjects": [subject], "roleRef": reference},
            namespace=namespace,
        )
        async with api_server.client_of("alice") as alice, api_server.client_of("mallory") as mallory:

            async def known() -> bool:
                with contextlib.suppress(ApiError):
                    return bool(await alice.list("ConfigMap", namespace))
                return False

            await eventually(known, "the API server has taken note of the binding, the namespace of its authority")
            assert [c["metadata"]["name"] for c in await alice.list("ConfigMap", namespace)] == ["kube-root-ca.crt"]
            with pytest.raises(ApiError, match=r'User "alice" cannot list resource "secrets"'):
                await alice.list("Secret", namespace)
            with pytest.raises(ApiError, match=r'User "mallory" cannot list resource "configmaps"'):
                await mallory.list("ConfigMap", namespace)

    async def test_users_are_who_their_credentials_say(self, api_server: ApiServer) -> None:
        who = await api_server.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}", user="alice")
        assert '"developers"' in who.stdout
        path = api_server.certificate_kubeconfig("eve", ["auditors"])
        who = await api_server.kubectl("--kubeconfig", str(path), "auth", "whoami", "-o", "yaml")
        assert "username: eve" in who.stdout and "- auditors" in who.stdout

    async def test_a_namespace_goes_with_everything_in_it(self, api_server: ApiServer) -> None:
        name = await api_server.new_namespace()
        await api_server.client.apply(_deployment(1), namespace=name)
        await api_server.client.delete("Namespace", name)
        await api_server.client.wait_gone("Namespace", name)
        assert await api_server.client.list("Pod", name) == []

    async def test_istio_s_custom_resources_are_judged_by_their_schemas(
        self, api_server: ApiServer, namespace: str
    ) -> None:
        await api_server.install_istio_crds()
        metadata = {"name": "wrong", "namespace": namespace}
        filter_ = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": metadata}
        with pytest.raises(ApiError, match='Unsupported value: "NOWHERE"'):
            await api_server.client.apply({**filter_, "spec": {"configPatches": [{"applyTo": "NOWHERE"}]}})


def test_a_killed_run_s_folder_goes_with_the_next_run_and_a_living_one_s_stays() -> None:
    prefix = f"hairpin-test-{secrets.token_hex(4)}-"
    dead = Path(tempfile.mkdtemp(prefix=prefix))
    (dead / ".alive").touch()
    with run_folder(prefix) as first, run_folder(prefix) as second:
        assert (dead.exists(), first.is_dir(), second.is_dir()) == (False, True, True)
    assert not first.exists() and not second.exists()
