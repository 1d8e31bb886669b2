"""The agents' API and ADS: who gets in, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

import aiohttp
import grpc
import pytest

from hairpin.certificate_reading import certificate_names
from hairpin.certificates import new_key_and_request
from hairpin.kubernetes.installation import SYSTEM
from tests.support.ads_client import AdsClient, channel_to, client_identity, open_stream
from tests.support.controller import SERVER_NAME, FakeAgent, controller, make_ready, reporting, trusting, url, workload
from tests.support.envoy import eventually
from xds_server.model.type_url import TypeUrl
from xds_server.protocol.frames import DiscoveryRequest, DiscoveryResponse

EGRESS = "hairpin.egress"


@pytest.fixture
async def client():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def post(client, replica, path, token, body=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with client.post(
        url(replica) + path, json=body, headers=headers, ssl=trusting(replica), server_hostname=SERVER_NAME
    ) as response:
        return response.status, await response.json()


async def test_an_agent_gets_the_certificate_of_its_pods_account(installed, api, shop, agent, client):
    _, request = new_key_and_request()
    async with controller(api, shop) as replica:
        await eventually(lambda: shop in replica.cluster.known, what="synced")
        token = await agent.get_token()
        status, answer = await post(client, replica, "/v1/certificates", token, {"certificateRequest": request})
        assert status == 200 and answer["certificateAuthority"] == replica.authority.certificate
        identity = f"spiffe://cluster.local/ns/{shop}/sa/hairpin-agent"
        assert certificate_names(answer["certificate"]).uris == (identity,) == (answer["identity"],)
        assert certificate_names(answer["certificate"]).dns == ()
        status, answer = await post(client, replica, "/v1/certificates", token, {"certificateRequest": 3})
        assert status == 422 and answer["details"]["field"] == "certificateRequest"


async def test_nobody_else_gets_one(installed, api, shop, agent, client):
    _, request = new_key_and_request()
    body = {"certificateRequest": request}
    async with controller(api, shop) as replica:
        await eventually(lambda: shop in replica.cluster.known, what="synced")
        assert (await post(client, replica, "/v1/certificates", "", body))[0] == 401
        assert (await post(client, replica, "/v1/certificates", "no-token", body))[0] == 401
        # A token for the API server is none for us.
        other = await agent.get_token(audience="https://kubernetes.default.svc")
        assert (await post(client, replica, "/v1/certificates", other, body))[0] == 401
        # A pod of that account without the label; a labelled one's name in another's mouth.
        (pod,) = await installed.client.list("Pod", shop, labels="app=checkout")
        plain = FakeAgent(installed, shop, pod=pod["metadata"]["name"], account="default")
        status, answer = await post(client, replica, "/v1/certificates", await plain.get_token(), body)
        assert status == 403 and "is no agent" in answer["message"]
        status, answer = await post(client, replica, "/v1/agents/hairpin-agent-1/reports", await agent.get_token())
        assert status == 403 and "hairpin-agent-0's" in answer["message"]


async def test_a_namespace_that_is_not_served_has_no_agents(installed, api, shop, agent, client):
    other = await installed.new_namespace()
    await workload(installed, other, "checkout", labels={"app.kubernetes.io/name": "hairpin-agent"})
    (pod,) = await installed.client.list("Pod", other)
    stranger = FakeAgent(installed, other, pod=pod["metadata"]["name"], account="default")
    async with controller(api, shop) as replica:
        await eventually(lambda: shop in replica.cluster.known, what="synced")
        body = {"certificateRequest": new_key_and_request()[1]}
        assert (await post(client, replica, "/v1/certificates", await stranger.get_token(), body))[0] == 403


async def test_one_who_does_not_lead_says_who_does(installed, api, shop, agent, client):
    async with controller(api, shop, identity="one") as one, controller(api, shop, identity="two") as two:
        await eventually(lambda: any(r.election.leading for r in (one, two)), what="a leader")
        leader, other = (one, two) if one.election.leading else (two, one)
        await eventually(lambda: shop in other.cluster.known and other.election.holder, what="synced")
        token = await agent.get_token()
        status, answer = await post(client, other, f"/v1/agents/hairpin-agent-0.{shop}/reports", token)
        assert status == 503 and f"not the leader; {leader.election.identity} is" in answer["message"]
        # Certificates are both's.
        body = {"certificateRequest": new_key_and_request()[1]}
        assert (await post(client, other, "/v1/certificates", token, body))[0] == 200
        async with client.get(f"{url(other)}/ready", ssl=trusting(other), server_hostname=SERVER_NAME) as response:
            assert response.status == 200 and (await response.json())["leader"] == leader.election.identity


@contextlib.asynccontextmanager
async def policies(client, replica, agent):
    path = f"{url(replica)}/v1/agents/{agent.pod}/policies"
    headers = {"Authorization": f"Bearer {agent.token}"}
    async with client.get(path, headers=headers, ssl=trusting(replica), server_hostname=SERVER_NAME) as response:
        assert response.status == 200

        async def until(condition):
            async with asyncio.timeout(20):
                while not condition(found := json.loads(await response.content.readline())):
                    pass
                return found

        yield until


async def test_agents_are_told_whose_connections_may_go_where(api, shop, laptop, agent, client):
    async with controller(api, shop, forbidden=("10.9.0.0/16",)) as replica, reporting(agent, replica):
        await eventually(lambda: shop in replica.cluster.known, what="synced")
        async with policies(client, replica, agent) as until:
            assert await until(bool) == {"sessions": {}, "forbidden": ["10.9.0.0/16"]}
            await laptop.claim("alice-1")
            await until(lambda found: found["sessions"] == {f"alice-1.{shop}": {"default": "Allow", "rules": []}})
            policy = {
                "apiVersion": "hairpin.dev/v1alpha1",
                "kind": "EgressPolicy",
                "metadata": {"name": "default", "namespace": shop},
                "spec": {"default": "Deny", "rules": [{"action": "Allow", "hosts": ["db"], "owners": ["admin"]}]},
            }
            await agent.server.client.apply(policy)
            rules = {"default": "Deny", "rules": [{"number": 1, "action": "Allow", "hosts": ["db"]}]}
            await until(lambda found: found["sessions"] == {f"alice-1.{shop}": rules})
            await laptop.end("alice-1")
            await until(lambda found: found["sessions"] == {})


async def test_the_agents_envoy_gets_the_sessions_of_its_namespace(installed, api, shop, laptop, agent):
    async with controller(api, shop) as replica, reporting(agent, replica):
        await laptop.claim("alice-1")
        await laptop.phase("alice-1", "Pending")
        identity = client_identity(replica.authority, uris=(f"spiffe://cluster.local/ns/{shop}/sa/hairpin-agent",))
        async with channel_to(replica.ads.port, identity, name=SERVER_NAME) as channel:
            stream = open_stream(channel)
            last = await _until(stream, shop, lambda egress: f"alice-1.{shop}".encode() in egress)
            await laptop.end("alice-1")
            await _until(stream, shop, lambda egress: f"alice-1.{shop}".encode() not in egress, last)
            stream.call.cancel()
            # A name that no pod of that account has; another account's certificate; a laptop's.
            other = open_stream(channel)
            await other.send(_ask(f"agent~hairpin-agent-7.{shop}"))
            assert (await other.refusal())[0] is grpc.StatusCode.PERMISSION_DENIED
        strangers = {"uris": (f"spiffe://cluster.local/ns/{SYSTEM}/sa/hairpin-agent",)}, {"dns": (f"alice-1.{shop}",)}
        for names in strangers:
            async with channel_to(
                replica.ads.port, client_identity(replica.authority, **names), name=SERVER_NAME
            ) as channel:
                stream = open_stream(channel)
                await stream.send(_ask(f"agent~hairpin-agent-0.{shop}"))
                assert (await stream.refusal())[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_every_ready_replica_needs_the_tunnel(installed, api, shop, laptop, agent):
    await installed.client.patch("StatefulSet", "hairpin-agent", {"spec": {"replicas": 2}}, namespace=shop)
    pod = await installed.client.wait_for("Pod", "hairpin-agent-1", bool, namespace=shop)
    second = FakeAgent(installed, shop, pod="hairpin-agent-1")
    async with controller(api, shop) as replica, reporting(agent, replica), reporting(second, replica):
        await laptop.claim("alice-1", localPort=3000)
        agent.report(f"alice-1.{shop}")
        await laptop.phase("alice-1", "Active")
        await make_ready(installed.client, pod)
        await laptop.phase("alice-1", "Ready")
        second.report(f"alice-1.{shop}")
        status = await laptop.phase("alice-1", "Active")
        assert status["tunnels"] == ["hairpin-agent-0", "hairpin-agent-1"]


async def _until(
    stream: AdsClient, shop: str, wanted: Callable[[bytes], bool], last: DiscoveryResponse | None = None
) -> DiscoveryResponse:
    """Ask until the agent's resource is as wanted: the controller has its own statuses by a watch, later than who wrote there.

    Args:
        stream: the agent's.
        shop: its namespace.
        wanted: judges the resource.
        last: the response that the stream had last.
    """
    found = last or DiscoveryResponse()
    async with asyncio.timeout(20):
        while True:
            await stream.send(_ask(f"agent~hairpin-agent-0.{shop}", found.version_info, found.nonce))
            found = await stream.receive()
            if wanted(found.resources[0].value):
                return found


def _ask(node: str, version: str = "", nonce: str = "") -> DiscoveryRequest:
    request = DiscoveryRequest(
        type_url=TypeUrl.EXTENSION_CONFIG, resource_names=[EGRESS], version_info=version, response_nonce=nonce
    )
    request.node.id = node
    return request
