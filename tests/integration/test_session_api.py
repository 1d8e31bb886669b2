"""The control plane's API over real TLS: who may do what, and what it answers. No proxy is connected."""

from __future__ import annotations

import asyncio
import json
import ssl

import aiohttp
import pytest

from hairpin.api import read_developer
from hairpin.certificate_reading import certificate_names
from hairpin.certificates import new_key_and_request
from hairpin.mesh.mesh_file import mesh_from_document
from hairpin.mesh.state import MeshFolder, write_folder
from hairpin.model.version import OURS, PROTOCOL, Version, user_agent
from hairpin.ports import free_ports
from tests.support.envoy import eventually
from xds_server.server.main import serving
from xds_server.settings import read_settings

_, REQUEST = new_key_and_request()


class Api:
    def __init__(self, folder: MeshFolder, client: aiohttp.ClientSession, url: str, context: ssl.SSLContext) -> None:
        self.folder, self.client, self.url, self.context = folder, client, url, context

    def token(self, who: str) -> str:
        if who.startswith("hairpin-agent"):
            return self.folder.agent(who).with_suffix(".token").read_text()
        return read_developer(self.folder.developer(who)).token

    async def __call__(self, who: str, method: str, path: str, body: object = None) -> tuple[int, dict]:
        headers = {"Authorization": f"Bearer {self.token(who)}"} if who else {}
        async with self.client.request(
            method, self.url + path, headers=headers, json=body, ssl=self.context
        ) as response:
            return response.status, await response.json()

    async def create(self, who: str, **spec: object) -> tuple[int, dict]:
        fields = {"target": {"name": "checkout"}, "environment": who, "certificateRequest": REQUEST} | spec
        return await self(who, "POST", "/v1/sessions", {"spec": fields})


@pytest.fixture
async def api(tmp_path):
    document = {"services": {"checkout": {}, "plain": {"steerable": False}}, "developers": ["alice", "bob"]}
    mesh = mesh_from_document(document, free_ports())
    folder = MeshFolder(tmp_path / "state")
    write_folder(folder, mesh)
    context = ssl.create_default_context(cafile=str(folder.root / "hairpin-ca.pem"))
    async with serving(read_settings(folder.settings)), aiohttp.ClientSession() as client:
        yield Api(folder, client, f"https://{mesh.control_plane.api}", context)


async def test_the_version_is_everyones(api):
    status, body = await api("", "GET", "/v1/version")
    assert status == 200 and body["version"] and body["time"]


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/x", "/v1/proxies"])
async def test_nothing_else_is(api, path):
    status, body = await api("", "GET", path)
    assert status == 401 and body["reason"] == "Unauthorized"


async def test_a_session_from_claim_to_end(api):
    status, session = await api.create("alice")
    name = session["metadata"]["name"]
    assert status == 201 and session["status"]["owner"] == "alice"
    assert tuple(certificate_names(session["status"]["certificate"]).dns) == (name,)
    status, listed = await api("bob", "GET", "/v1/sessions")
    [seen] = listed["items"]
    assert seen["metadata"]["name"] == name and seen["status"]["owner"] == "alice"
    assert "certificate" not in seen["status"] and "certificateRequest" not in seen["spec"]
    assert (await api("alice", "PATCH", f"/v1/sessions/{name}", {"spec": {"localPort": 8080}}))[0] == 200
    assert (await api("alice", "DELETE", f"/v1/sessions/{name}"))[0] == 200
    assert (await api("alice", "GET", f"/v1/sessions/{name}"))[0] == 404


async def test_the_owner_is_the_tokens_whatever_is_claimed(api):
    fields = {"target": {"name": "checkout"}, "environment": "x", "certificateRequest": REQUEST}
    body = {"spec": fields, "status": {"owner": "alice"}, "metadata": {"name": "mine"}}
    status, session = await api("bob", "POST", "/v1/sessions", body)
    assert status == 201 and session["status"]["owner"] == "bob" and session["metadata"]["name"] != "mine"


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [("PATCH", "", {"spec": {"localPort": 1}}), ("DELETE", "", None), ("GET", "?watch=true", None)],
)
async def test_another_developers_session_is_out_of_reach(api, method, query, body):
    _, session = await api.create("alice")
    status, answer = await api("bob", method, f"/v1/sessions/{session['metadata']['name']}{query}", body)
    assert status == 403 and "alice" in answer["message"]
    assert (await api("alice", "GET", f"/v1/sessions/{session['metadata']['name']}"))[0] == 200


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({"target": {"name": "chekout"}}, 404, "checkout"),
        ({"target": {"name": "plain"}}, 422, "steerable"),
        ({"target": None}, 422, "spec.target"),
        ({"environment": None}, 422, "spec.environment"),
        ({"mode": "mirror", "environment": None}, 422, "spec.environment"),
        ({"mode": "stale"}, 422, "spec.mode"),
        ({"leaseSeconds": 0}, 422, "spec.leaseSeconds"),
        ({"match": {"header": {"name": "x-hairpin-session"}}}, 422, "spec.match"),
        ({"match": {"header": {"name": "x", "regex": "("}}}, 422, "spec.match"),
        ({"certificateRequest": "x"}, 422, "certificateRequest"),
        ({"environmnt": "x"}, 422, "environmnt"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_claimed(api, spec, status, words):
    code, body = await api.create("alice", **spec)
    assert code == status and words in body["message"], body
    assert (await api("alice", "GET", "/v1/sessions"))[1]["items"] == []


async def test_a_second_claim_is_refused_by_name(api):
    await api.create("alice", environment="alice")
    status, body = await api.create("bob", environment="alice")
    assert status == 409 and body["reason"] == "Conflict" and "alice" in body["message"]


async def test_a_watch_tells_what_becomes_of_a_session(api):
    _, session = await api.create("alice")
    name = session["metadata"]["name"]
    headers = {"Authorization": f"Bearer {api.token('alice')}"}
    async with api.client.get(f"{api.url}/v1/sessions/{name}?watch=true", headers=headers, ssl=api.context) as watch:
        events = [json.loads(await watch.content.readline())["type"]]
        await api("alice", "PATCH", f"/v1/sessions/{name}", {"spec": {"localPort": 8080}})
        events.append(json.loads(await watch.content.readline())["type"])
        await api("alice", "DELETE", f"/v1/sessions/{name}")
        events.append(json.loads(await watch.content.readline())["type"])
        assert await watch.content.readline() == b""
    assert events == ["ADDED", "MODIFIED", "DELETED"]


async def test_an_agents_reports_last_as_long_as_its_request(api):
    _, session = await api.create("alice")
    name = session["metadata"]["name"]
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def body():
        while (line := await lines.get()) is not None:
            yield line

    async def phase() -> str:
        return (await api("alice", "GET", f"/v1/sessions/{name}"))[1]["status"]["phase"]

    async def becomes(wanted: str) -> None:
        async def so() -> bool:
            return await phase() == wanted

        await eventually(so, what=f"phase {wanted}")

    headers = {"Authorization": f"Bearer {api.token('hairpin-agent-0')}"}
    async with asyncio.TaskGroup() as tasks:
        url = f"{api.url}/v1/agents/hairpin-agent-0/reports"
        sent = tasks.create_task(api.client.post(url, headers=headers, data=body(), ssl=api.context).__aenter__())
        await lines.put(json.dumps({"tunnels": [name]}).encode() + b"\n")
        await becomes("Ready")
        await lines.put(None)
        await becomes("Lost")
        assert (await sent).status == 200
        sent.result().close()


async def test_an_agent_certifies_itself_and_nobody_else(api):
    status, body = await api("hairpin-agent-0", "POST", "/v1/certificates", {"certificateRequest": REQUEST})
    assert status == 200
    names = certificate_names(body["certificate"])
    assert tuple(names.uris) == (body["identity"],) == ("spiffe://hairpin.local/ns/default/sa/hairpin-agent",)
    assert not names.dns
    assert (await api("alice", "POST", "/v1/certificates", {"certificateRequest": REQUEST}))[0] == 403
    assert (await api("hairpin-agent-0", "GET", "/v1/sessions"))[0] == 403


@pytest.mark.parametrize("raw", [b"{", b"[]", b"null", b"\xff"])
async def test_what_is_no_json_object_is_said_to_be_none(api, raw):
    headers = {"Authorization": f"Bearer {api.token('alice')}"}
    async with api.client.post(f"{api.url}/v1/sessions", headers=headers, data=raw, ssl=api.context) as response:
        body = await response.json()
        assert response.status == 422 and "body" in body["message"]


async def test_a_laptop_of_another_protocol_is_refused_with_both_versions(api):
    client = {"version": "9.9.9", "protocol": PROTOCOL + 1}
    # It knows fields that we do not.
    status, body = await api.create("alice", client=client, tomorrow=True)
    assert (status, body["reason"]) == (426, "UpgradeRequired")
    assert f"the laptop's hairpin is 9.9.9 (protocol {PROTOCOL + 1}), the control plane's is {OURS}" in body["message"]
    assert (await api("alice", "GET", "/v1/sessions"))[1]["items"] == []
    status, session = await api.create("alice", client={"version": "9.9.9", "protocol": PROTOCOL})
    assert (status, session["status"]["server"]) == (201, {"version": OURS.text, "protocol": PROTOCOL})


async def test_an_agent_of_another_protocol_gets_no_certificate(api):
    api.client.headers["User-Agent"] = user_agent(Version("9.9.9", PROTOCOL + 1))
    asked = {"certificateRequest": REQUEST}
    status, body = await api("hairpin-agent-0", "POST", "/v1/certificates", asked)
    assert (status, body["reason"]) == (426, "UpgradeRequired")
    assert "the agent is hairpin 9.9.9" in body["message"]
    api.client.headers["User-Agent"] = user_agent(Version("9.9.9", PROTOCOL))
    assert (await api("hairpin-agent-0", "POST", "/v1/certificates", asked))[0] == 200
