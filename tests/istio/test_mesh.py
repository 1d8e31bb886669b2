"""The mesh under test is what it claims to be: STRICT mutual TLS, real identities, real injection, real routing, a real node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.support.cluster.images import PYTHON, ROOT
from tests.support.cluster.mesh import Cluster
from tests.support.cluster.pods import Place, Response
from tests.support.cluster.processes import words_of
from tests.support.mesh import PATIENCE

SPIFFE = "spiffe://cluster.local/ns/shop/sa"
GRPC = """
import grpc
with grpc.insecure_channel("checkout:7070") as channel:
    call = channel.unary_unary("/hairpin.test.Echo/Unary")
    print(call(b'{"message": "hello"}', wait_for_ready=True, timeout=20).decode())
"""


async def until(place: Place, url: str, wanted, **options) -> Response:
    """Asks until the answer is as wanted: configuration takes a moment to arrive. One that is no application's never is."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        response = await place.request(url, **options)
        with contextlib.suppress(json.JSONDecodeError):
            if wanted(response):
                return response
        await asyncio.sleep(0.1)
    raise AssertionError(f"{url} answers {response.status}: {response.text}")


class TestIdentity:
    async def test_each_hop_is_known_by_the_caller_s_account(self, shop: Cluster) -> None:
        answer = (await (await shop.pod("shop", "app=echo")).request("http://frontend/")).json
        assert [answer["who"], answer["next"]["who"], answer["next"]["next"]["who"]] == [
            "frontend",
            "checkout",
            "inventory",
        ]
        callers = [
            hop["headers"]["x-forwarded-client-cert"] for hop in (answer, answer["next"], answer["next"]["next"])
        ]
        for caller, account in zip(callers, ("echo", "frontend", "checkout"), strict=True):
            assert f"URI={SPIFFE}/{account}" in caller

    async def test_both_replicas_are_asked(self, shop: Cluster) -> None:
        caller = await shop.pod("shop", "app=frontend")
        answers = [(await caller.request("http://checkout/")).json for _ in range(20)]
        names = {pod.name for pod in await shop.pods("shop", "app=checkout")}
        assert len(names) == 2 and {answer["pod"] for answer in answers} == names

    async def test_headers_of_an_environment_travel_along(self, shop: Cluster) -> None:
        headers = {"x-env": "alice", "baggage": "env=alice"}
        answer = (await (await shop.pod("shop", "app=echo")).request("http://frontend/", headers=headers)).json
        last = answer["next"]["next"]["headers"]
        assert (last["x-env"], last["baggage"]) == ("alice", "env=alice")

    async def test_plaintext_from_outside_is_refused(self, shop: Cluster) -> None:
        pod = await shop.pod("shop", "app=checkout")
        with pytest.raises(aiohttp.ClientError):
            await shop.outside.request(f"http://{pod.ip}:8080/")
        with pytest.raises(aiohttp.ClientError):
            await shop.outside.request("http://checkout.shop/")

    async def test_an_authorization_policy_refuses_all_but_one(self, shop: Cluster) -> None:
        name = f"only-checkout-{secrets.token_hex(3)}"
        source = {"principals": ["cluster.local/ns/shop/sa/checkout"]}
        spec = {"selector": {"matchLabels": {"app": "inventory"}}, "rules": [{"from": [{"source": source}]}]}
        metadata = {"name": name, "namespace": "shop"}
        policy = {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": metadata,
            "spec": spec,
        }
        await shop.client.apply(policy)
        try:
            await until(await shop.pod("shop", "app=echo"), "http://inventory/", lambda r: r.status == 403)
            allowed = await (await shop.pod("shop", "app=checkout")).request("http://inventory/")
            assert allowed.who == "inventory"
        finally:
            await shop.client.delete("AuthorizationPolicy", name, "shop")
        await until(await shop.pod("shop", "app=echo"), "http://inventory/", lambda r: r.status == 200)


class TestInjection:
    async def test_istiod_injects_its_own_template(self, shop: Cluster) -> None:
        for pod in await shop.pods("shop", "app in (frontend, checkout, inventory)"):
            assert {"istio-init", "istio-proxy", "app"} == set(pod.containers)
            assert pod.object["metadata"]["annotations"]["istio.io/rev"] == "default"

    async def test_a_pod_asks_for_it_by_label_and_others_get_none(self, cluster: Cluster) -> None:
        name = await cluster.new_namespace()
        for pod, labels in (("in", {"sidecar.istio.io/inject": "true"}), ("out", {})):
            probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
            spec = {"containers": [{"name": "app", "image": "app", "args": [pod], "readinessProbe": probe}]}
            await cluster.client.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": pod, "namespace": name, "labels": labels},
                    "spec": spec,
                }
            )
            await cluster.client.wait_for("Pod", pod, _is_ready, namespace=name)
        found = {pod.name: "istio-proxy" in pod.containers for pod in await cluster.pods(name)}
        assert found == {"in": True, "out": False}
        # Without a sidecar it answers anyone.
        [out] = [pod for pod in await cluster.pods(name) if pod.name == "out"]
        assert (await cluster.outside.request(f"http://{out.ip}:8080/")).who == "out"
        await cluster.client.delete("Namespace", name)


class TestRouting:
    async def test_a_virtual_service_routes_by_header(self, shop: Cluster) -> None:
        def to(host: str) -> list:
            return [{"destination": {"host": host}}]

        match = [{"headers": {"x-env": {"exact": "elsewhere"}}}]
        spec = {"hosts": ["checkout"], "http": [{"match": match, "route": to("inventory")}, {"route": to("checkout")}]}
        metadata = {"name": "by-header", "namespace": "shop"}
        route = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}
        caller = await shop.pod("shop", "app=frontend")
        await shop.client.apply(route)
        try:
            await until(caller, "http://checkout/", lambda r: r.who == "inventory", headers={"x-env": "elsewhere"})
            assert (await caller.request("http://checkout/", headers={"x-env": "alice"})).who == "checkout"
        finally:
            await shop.client.delete("VirtualService", "by-header", "shop")
        await until(caller, "http://checkout/", lambda r: r.who == "checkout", headers={"x-env": "elsewhere"})

    async def test_web_sockets_and_grpc_go_through(self, shop: Cluster) -> None:
        caller = await shop.pod("shop", "app=frontend")
        async with caller.session() as session, session.ws_connect("http://checkout/") as socket:
            hello = await socket.receive_json()
            assert (
                hello["who"] == "checkout" and f"URI={SPIFFE}/frontend" in hello["headers"]["x-forwarded-client-cert"]
            )
            await socket.send_str("ping")
            assert await socket.receive_str() == "ping"
        answer = await shop.exec(caller, PYTHON, "-c", GRPC, container="app")
        assert '"who": "checkout"' in answer and '"message": "hello"' in answer
        assert f"{SPIFFE}/frontend" in answer

    async def test_istio_s_echo_server_answers(self, shop: Cluster) -> None:
        answer = await (await shop.pod("shop", "app=frontend")).request("http://echo/")
        assert "ServiceVersion=v1" in answer.text and "Cluster=test" in answer.text


class TestNode:
    async def test_exec_and_port_forward(self, shop: Cluster) -> None:
        pod = await shop.pod("shop", "app=checkout")
        assert (await shop.exec(pod, "hostname", container="app")).strip() == pod.name
        async with shop.port_forward(pod, 8080) as port, aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                assert (await response.json())["pod"] == pod.name

    async def test_a_deployment_rolls_out(self, shop: Cluster) -> None:
        before = await shop.pods("shop", "app=inventory")
        stamp = {"metadata": {"annotations": {"test/stamp": secrets.token_hex(4)}}}
        await shop.client.patch("Deployment", "inventory", {"spec": {"template": stamp}}, namespace="shop")
        await shop.rolled_out("Deployment", "inventory", "shop")
        [pod] = await shop.pods("shop", "app=inventory")
        assert pod.name not in [old.name for old in before]
        for old in before:
            await shop.client.wait_gone("Pod", old.name, namespace="shop")
            assert not old.network.exists()
        caller = await shop.pod("shop", "app=checkout")
        await until(caller, "http://inventory/", lambda r: r.status == 200 and r.json["pod"] == pod.name)

    async def test_a_killed_sidecar_is_started_again(self, shop: Cluster) -> None:
        pod = await shop.pod("shop", "app=echo")
        await shop.kill_container(pod, "istio-proxy")
        await shop.client.wait_for("Pod", pod.name, lambda p: _restarts(p)["istio-proxy"] == 1, namespace="shop")
        await shop.client.wait_for("Pod", pod.name, _is_ready, namespace="shop")
        caller = await shop.pod("shop", "app=frontend")
        await until(caller, "http://echo/", lambda r: "ServiceVersion=v1" in r.text)

    async def test_a_namespace_goes_with_its_pods(self, cluster: Cluster) -> None:
        name = await cluster.new_namespace(**{"istio-injection": "enabled"})
        spec = {"containers": [{"name": "app", "image": "app", "args": ["gone"]}], "terminationGracePeriodSeconds": 1}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gone", "namespace": name}, "spec": spec}
        await cluster.client.apply(pod)
        await cluster.client.wait_for("Pod", "gone", _is_ready, namespace=name)
        [gone] = await cluster.pods(name)
        assert gone.network.exists()
        await cluster.client.delete("Namespace", name)
        await cluster.client.wait_gone("Namespace", name)
        assert not gone.network.exists()


class TestPrograms:
    @pytest.mark.parametrize("program", ["istiod", "kube-apiserver", "etcd"])
    async def test_requests_go_on_while_one_is_killed_and_started_again(self, shop: Cluster, program: str) -> None:
        caller = await shop.pod("shop", "app=frontend")
        shop.programs[program].kill()
        answers = Counter([(await caller.request("http://checkout/")).status for _ in range(10)])
        shop.programs.again(program)
        assert answers == {200: 10}
        await shop.plane.ready(shop.client)
        await shop.client.wait_for(
            "Deployment", "checkout", lambda d: d["status"]["readyReplicas"] == 2, namespace="shop"
        )

    async def test_a_mesh_ends_with_the_process_that_wanted_it_even_if_that_is_killed(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.cluster", "--bare"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        while "mesh is up" not in (line := (await process.stdout.readline()).decode()):
            assert line, "the mesh did not come up"
        started = psutil.Process(process.pid).children(recursive=True)
        names = {Path(words[0]).name for child in started if (words := words_of(child))}
        assert {"etcd", "kube-apiserver", "pilot-discovery", "node"} <= names
        process.send_signal(signal.SIGKILL)
        await process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, started, PATIENCE)
        assert alive == []


class TestLaptop:
    async def test_programs_run_as_an_ordinary_user_with_a_developer_s_rights(self, cluster: Cluster) -> None:
        code, output = await cluster.laptop.run("id", "-u")
        assert (code, output.strip()) == (0, "1000")
        code, output = await cluster.laptop.run("kubectl", "get", "secrets", user="alice")
        assert code == 1 and 'User "alice" cannot list resource "secrets"' in output

    async def test_hairpin_runs_there(self, cluster: Cluster) -> None:
        code, output = await cluster.laptop.run(*cluster.laptop.hairpin("--version"))
        assert code == 0 and output.startswith("hairpin ")

    async def test_a_program_can_be_watched_and_ended(self, cluster: Cluster) -> None:
        script = "trap 'echo asked; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
        async with cluster.laptop.running("sh", "-c", script) as program:
            await program.printed("ready")
            program.signal(signal.SIGTERM)
            assert await program.wait() == 7
            await program.printed("asked")


def _is_ready(pod: dict) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _restarts(pod: dict) -> dict[str, int]:
    status = pod["status"]
    found = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {container["name"]: container["restartCount"] for container in found}
