"""The client of the API server: who it is by a kubeconfig, and what it makes of refusals."""

from __future__ import annotations

import contextlib
import json
import stat
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from hairpin.errors import HairpinError, NotFoundError
from hairpin.kubernetes.api import connect
from hairpin.kubernetes.errors import (
    ApiConflictError,
    ApiForbiddenError,
    ApiInvalidError,
    ApiUnauthorizedError,
    ApiUnavailableError,
)
from hairpin.kubernetes.kinds import CONFIG_MAPS, ENVOY_FILTERS, SELF_SUBJECT_REVIEWS, SESSIONS

REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


async def who(api) -> str:
    return (await api.create(SELF_SUBJECT_REVIEWS, REVIEW))["status"]["userInfo"]["username"]


class Plugin:
    """A kubeconfig whose user is an exec plugin; `give` says whom it makes one next."""

    def __init__(self, server, folder):
        self._tokens = server.plane.users.tokens
        self._answer, self._log = folder / "answer.json", folder / "log"
        script = folder / "plugin"
        script.write_text(f"#!/bin/sh\necho x >> {self._log}\ncat {self._answer}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        config = yaml.safe_load(server.kubeconfig(namespace="shop").read_text())
        version = "client.authentication.k8s.io/v1"
        exec_ = {"apiVersion": version, "command": str(script), "interactiveMode": "Never"}
        config["users"][0]["user"] = {"exec": exec_}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    @property
    def runs(self) -> int:
        return len(self._log.read_text().splitlines())

    def give(self, user: str, *, seconds: float | None = None, token: str = "") -> None:
        status = {"token": token or self._tokens[user]}
        if seconds is not None:
            end = datetime.now(UTC) + timedelta(seconds=seconds)
            status["expirationTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        version = "client.authentication.k8s.io/v1"
        self._answer.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))


@pytest.fixture
def plugin(installed, tmp_path):
    return Plugin(installed, tmp_path)


async def test_a_plugins_credential_is_kept_until_it_ends(plugin):
    plugin.give("alice", seconds=3600)
    async with connect(kubeconfig=str(plugin.kubeconfig)) as api:
        assert [await who(api) for _ in range(3)] == ["alice"] * 3
        assert plugin.runs == 1 and api.namespace == "shop"
    plugin.give("alice", seconds=1)
    async with connect(kubeconfig=str(plugin.kubeconfig)) as api:
        plugin.give("bob", seconds=3600)
        assert await who(api) == "bob"
        assert plugin.runs == 3


async def test_one_that_the_api_server_refuses_is_renewed_once(plugin):
    plugin.give("alice", token="expired")
    async with connect(kubeconfig=str(plugin.kubeconfig)) as api:
        plugin.give("alice")
        assert await who(api) == "alice" and plugin.runs == 2
    plugin.give("alice", token="expired")
    async with connect(kubeconfig=str(plugin.kubeconfig)) as api:
        with pytest.raises(ApiUnauthorizedError, match="log in again"):
            await who(api)


async def test_a_plugin_that_fails_is_named(plugin):
    with pytest.raises(HairpinError, match=r"exec plugin '.*/plugin' gave no credentials"):
        async with connect(kubeconfig=str(plugin.kubeconfig)):
            pass


async def test_contexts(installed, tmp_path):
    merged = yaml.safe_load(installed.kubeconfig().read_text())
    other = yaml.safe_load(installed.kubeconfig("alice", namespace="shop").read_text())
    merged["users"] += other["users"]
    merged["contexts"].append({**other["contexts"][0], "name": "alices"})
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(merged))
    async with connect(kubeconfig=str(file)) as api:
        assert await who(api) == "admin"
    async with connect(kubeconfig=str(file), context="alices") as api:
        assert (await who(api), api.namespace) == ("alice", "shop")
    with pytest.raises(NotFoundError, match=r"no context 'bobs'; it has .*alices"):
        async with connect(kubeconfig=str(file), context="bobs"):
            pass
    with pytest.raises(NotFoundError, match="there is no file"):
        async with connect(kubeconfig=str(tmp_path / "none")):
            pass


async def test_a_client_certificate(installed):
    async with connect(kubeconfig=str(installed.certificate_kubeconfig("eve", ["auditors"]))) as api:
        assert await who(api) == "eve"


async def test_refusals_name_permission_and_object(installed, shop):
    async with connect(kubeconfig=str(installed.kubeconfig("mallory"))) as api:
        with pytest.raises(ApiForbiddenError, match=r'"mallory" cannot list resource "sessions".*hairpin\.dev'):
            await api.list(SESSIONS, namespace=shop)
    async with connect(kubeconfig=str(installed.kubeconfig())) as api:
        wrong = {"apiVersion": SESSIONS.api_version, "kind": "Session", "metadata": {"generateName": "s-"}}
        with pytest.raises(ApiInvalidError, match=r"spec"):
            await api.create(SESSIONS, wrong, namespace=shop)
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": shop}}
        made = await api.create(CONFIG_MAPS, config, namespace=shop)
        with pytest.raises(ApiConflictError) as raised:
            await api.create(CONFIG_MAPS, config, namespace=shop)
        assert raised.value.reason == "AlreadyExists"
        with pytest.raises(ApiConflictError):
            await api.delete(CONFIG_MAPS, "c", namespace=shop, uid="another")
        assert await api.delete(CONFIG_MAPS, "c", namespace=shop, uid=made["metadata"]["uid"])
        assert await api.delete(CONFIG_MAPS, "c", namespace=shop) is None
        assert await api.find(CONFIG_MAPS, "c", namespace=shop) is None
        assert await api.served(ENVOY_FILTERS)


async def test_a_watch_has_objects_of_any_size(installed, shop):
    async with connect(kubeconfig=str(installed.kubeconfig())) as api:
        version = (await api.list(CONFIG_MAPS, namespace=shop))["metadata"]["resourceVersion"]
        large = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"x": "y" * 700_000}}
        await api.create(CONFIG_MAPS, large, namespace=shop)
        async with contextlib.aclosing(
            api.watch(CONFIG_MAPS, namespace=shop, version=version, fields="metadata.name=large")
        ) as events:
            event = await anext(events)
        assert event.type == "ADDED" and len(event.object["data"]["x"]) == 700_000


async def test_no_api_server_is_said_with_its_address(installed, tmp_path):
    config = yaml.safe_load(installed.kubeconfig().read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config))
    async with connect(kubeconfig=str(file)) as api:
        with pytest.raises(ApiUnavailableError, match=r"https://127\.0\.0\.1:1 can't be reached"):
            await who(api)
