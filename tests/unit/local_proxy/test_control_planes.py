"""Which control plane the flags mean."""

from __future__ import annotations

import socket

import pytest
import yaml

from hairpin.api import Developer, write_developer
from hairpin.errors import HairpinError, InvalidFieldError, NotFoundError
from local_proxy.control_planes import Connection, EmbeddedMesh, KubernetesCluster, control_plane

AUTHORITY = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [
        {"name": "staging", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
        {"name": "other", "context": {"cluster": "c", "user": "u"}},
    ],
    "current-context": "staging",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "HAIRPIN_CONFIG", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "alice")
    return tmp_path


def kubeconfig(home, **changes):
    path = home / ".kube" / "config"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**KUBECONFIG, **changes}))
    return path


def embedded(path, port=1):
    developer = Developer(
        server=f"https://127.0.0.1:{port}", certificate_authority=AUTHORITY, token="t", user="alice"
    )  # fmt: skip
    write_developer(path, developer)
    return path


@pytest.fixture
def mesh_file(home):
    return home / ".local" / "state" / "hairpin" / "mesh" / "developers" / "alice.yaml"


async def chosen(**flags):
    async with control_plane(Connection(**flags)) as plane:
        return plane


async def test_the_kubeconfigs_context_and_its_namespace(home):
    kubeconfig(home)
    plane = await chosen()
    assert isinstance(plane, KubernetesCluster)
    assert plane.title == "context staging (https://127.0.0.1:1), namespace shop"


@pytest.mark.parametrize(
    ("flags", "where"),
    [
        ({"context": "other"}, ("other", "default")),
        ({"namespace": "billing"}, ("staging", "billing")),
        ({"context": "other", "namespace": "billing"}, ("other", "billing")),
    ],
)
async def test_a_context_and_a_namespace_that_are_named(home, flags, where):
    kubeconfig(home)
    plane = await chosen(**flags)
    assert (plane.api.context, plane.namespace) == where


async def test_the_mesh_on_this_machine_goes_before_a_kubeconfig_as_long_as_it_runs(home, mesh_file):
    kubeconfig(home)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        embedded(mesh_file, listening.getsockname()[1])
        assert isinstance(await chosen(), EmbeddedMesh)
        assert isinstance(await chosen(context="staging"), KubernetesCluster)
    assert isinstance(await chosen(), KubernetesCluster)


async def test_a_mesh_that_is_down_is_meant_where_there_is_nothing_else(home, mesh_file):
    embedded(mesh_file)
    assert isinstance(await chosen(), EmbeddedMesh)


async def test_a_file_that_is_named_means_that_mesh(home, monkeypatch):
    kubeconfig(home)
    file = embedded(home / "alice.yaml")
    assert isinstance(await chosen(config=str(file)), EmbeddedMesh)
    monkeypatch.setenv("HAIRPIN_CONFIG", str(file))
    assert isinstance(await chosen(), EmbeddedMesh)
    assert isinstance(await chosen(context="staging"), KubernetesCluster)


async def test_two_that_contradict_each_other(home):
    kubeconfig(home)
    with pytest.raises(
        InvalidFieldError, match=r"--config: 'x' names an embedded mesh, and --context a Kubernetes cluster"
    ):
        await chosen(config="x", context="staging")


async def test_nothing_at_all_is_told_with_both_ways(home):
    with pytest.raises(NotFoundError, match=r"no mesh found .*`hairpin mesh up`.*--kubeconfig"):
        await chosen()


@pytest.mark.parametrize(
    ("flags", "changes", "words"),
    [
        ({"context": "prod"}, {}, "--context: the kubeconfig has no context 'prod'; it has staging, other"),
        ({}, {"current-context": ""}, "--context: the kubeconfig has no current context; it has staging, other"),
        ({"namespace": "No"}, {}, "--namespace: 'No' is no"),
        ({}, {"contexts": "none"}, "kubeconfig .* can't be used"),
        ({}, {"users": []}, "kubeconfig.* can't be used"),
    ],
)
async def test_a_kubeconfig_that_can_not_be_used_is_told(home, flags, changes, words):
    kubeconfig(home, **changes)
    with pytest.raises(HairpinError, match=words):
        await chosen(**flags)


async def test_a_kubeconfig_that_is_not_there_is_told(home, monkeypatch):
    with pytest.raises(NotFoundError, match="--kubeconfig: there is no file"):
        await chosen(kubeconfig=str(home / "none"))
    monkeypatch.setenv("KUBECONFIG", str(home / "none"))
    with pytest.raises(NotFoundError, match="KUBECONFIG: there is no file"):
        await chosen()
