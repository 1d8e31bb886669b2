"""The EnvoyFilters of steering, in a real istiod's hands: STRICT mutual TLS, the agent's port named `tcp-…`."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from hairpin.model.match import Header, StringKind, StringPredicate
from tests.support.filter_mesh import GRPC, HTTP, ISTIO, LAPTOP, TARGET, filter_mesh
from tests.support.mesh import eventually
from tests.support.protocols import PROTOCOLS
from xds_server.delivery.istio.envoyfilter import plumbing_name, sessions_object

SECURITY, NETWORKING = "security.istio.io/v1", "networking.istio.io/v1"
STEERED = [
    "grpc_bidi",
    "grpc_client_stream",
    "grpc_error",
    "grpc_server_stream",
    "grpc_unary",
    "http1",
    "sse",
    "websocket",
]
SELECTED = {"selector": {"matchLabels": {"app": TARGET}}}


@pytest.fixture(scope="module")
async def mesh(cluster):
    async with filter_mesh(cluster, "filters") as made:
        yield made


@pytest.fixture(scope="module")
async def sessions(mesh):
    """alice's at both ports, and sessions whose tunnel is gone."""
    await mesh.sessions([mesh.claim("alice"), mesh.claim("gone")])
    await mesh.sessions([mesh.claim("grpc-alice", "header x-env=alice"), mesh.claim("gone")], GRPC)
    # Callers keep connections to the listener that the plumbing changed.
    await mesh.answered_by(LAPTOP, "alice")
    return mesh


async def check(mesh, name, env, who):
    port = GRPC if name.startswith("grpc_") else 80
    async with mesh.door(port) as address:
        await PROTOCOLS[name](
            address, f"{TARGET}:{port}" if port == GRPC else TARGET, {"x-env": env} if env else {}, who
        )


@pytest.mark.parametrize("name", STEERED)
async def test_steered_through_a_sidecar_that_passes_bytes(sessions, name):
    await check(sessions, name, "alice", LAPTOP)


@pytest.mark.parametrize("name", STEERED)
@pytest.mark.parametrize("env", ["", "bob", "gone"])
async def test_unmatched_or_without_a_tunnel_it_is_the_application_s(sessions, name, env):
    """POST and gRPC too: the agent says that nothing was delivered."""
    await check(sessions, name, env, TARGET)


async def test_the_agents_side_is_tcp_and_the_targets_cluster_http(sessions):
    """Decision 6: the options are merged into a cluster to which Istio itself gives none."""
    name = f"outbound|8080||hairpin-agent.{sessions.namespace}.svc.cluster.local"
    options = {}
    for pod in (sessions.target, sessions.caller):
        for found in json.loads(await pod.envoy("/config_dump?resource=dynamic_active_clusters"))["configs"]:
            if found["cluster"]["name"] == name:
                options[pod.name] = found["cluster"].get("typed_extension_protocol_options")
    assert options[sessions.caller.name] is None, "Istio gives a tcp port's cluster options of its own now"
    assert "use_downstream_protocol_config" in str(options[sessions.target.name])
    chains = json.loads(await sessions.agent.envoy("/config_dump?resource=dynamic_listeners"))["configs"]
    [inbound] = [found["active_state"]["listener"] for found in chains if found["name"] == "virtualInbound"]
    filters = {
        filter_["name"]
        for chain in inbound["filter_chains"]
        if chain.get("filter_chain_match", {}).get("destination_port") == HTTP
        for filter_ in chain["filters"]
    }
    assert filters == {"envoy.filters.network.tcp_proxy"}


async def test_a_hundred_changes_of_sessions_change_no_listener_and_cut_no_stream(sessions):
    before = await sessions.listeners()
    async with sessions.door(80) as address, aiohttp.ClientSession(headers={"host": TARGET}) as client:
        url = f"http://{address[0]}:{address[1]}/ws"
        async with client.ws_connect(url, headers={"x-env": "alice"}) as steered, client.ws_connect(url) as other:
            assert [(await s.receive_json())["who"] for s in (steered, other)] == [LAPTOP, TARGET]
            for number in range(100):
                extra = [sessions.claim(f"s{n}", second=n) for n in range(number % 10)]
                await sessions.sessions([sessions.claim("alice"), sessions.claim("gone"), *extra])
                for stream in (steered, other):
                    await stream.send_str(str(number))
                    assert await stream.receive_str() == str(number)
    assert await sessions.listeners() == before
    await sessions.sessions([sessions.claim("alice"), sessions.claim("gone")])


async def test_two_hundred_sessions_the_oldest_is_first_whatever_its_name(sessions):
    """RBAC judges policies in the order of their names: later sessions leave out what is an earlier one's."""
    names = [f"s{number:03}" for number in range(200)]
    apart = [sessions.claim(name, second=number) for number, name in enumerate(names)]
    document = await sessions.sessions([*apart, sessions.claim("alice", second=500)])
    assert len(json.dumps(document)) < 100_000
    assert (await sessions.ask("alice")).who == LAPTOP
    overlapping = [
        sessions.claim("gone-a", "header x-a", second=2),
        sessions.claim("gone-b", "header x-b", second=3),
        sessions.claim("z", "header x-c", second=1),
    ]
    await sessions.sessions(overlapping)
    answer = await sessions.ask(headers={"x-a": "1", "x-b": "1", "x-c": "1"})
    assert (answer.who, answer.json["headers"]["x-hairpin-session"]) == (LAPTOP, f"z.{sessions.namespace}")
    assert (await sessions.ask(headers={"x-a": "1", "x-b": "1"})).who == TARGET
    await sessions.sessions([sessions.claim("alice"), sessions.claim("gone")])


async def test_one_bad_expression_has_all_refused_and_the_old_sessions_stay(sessions):
    """Why matches are validated before they are written."""
    bad = Header("x-env", StringPredicate(StringKind.EXACT, "placeholder"))
    document = sessions_object(sessions.workload, HTTP, [sessions.claim("bob"), sessions.claim("bad", bad)], ISTIO)
    [patch, _mirrors] = document["spec"]["configPatches"]
    policy = patch["patch"]["value"]["typedConfig"]["shadowRules"]["policies"][f"bad.{sessions.namespace}"]
    policy["permissions"][0]["header"]["stringMatch"] = {"safeRegex": {"regex": "("}}
    logged = len(sessions.cluster.programs["istiod"].log.read_text())
    await sessions.cluster.client.apply(document)

    async def refused():
        return "ACK ERROR" in sessions.cluster.programs["istiod"].log.read_text()[logged:]

    await eventually(refused, "istiod says that a sidecar refused")
    # The configuration dump has what was refused: it is no acknowledgement. What is judged by is the old.
    assert f"bad.{sessions.namespace}" in await sessions.policies()
    assert (await sessions.ask("bob")).who == TARGET
    assert (await sessions.ask("alice")).who == LAPTOP
    await sessions.sessions([sessions.claim("alice"), sessions.claim("gone")])


async def test_without_sessions_the_object_is_written_empty(sessions):
    before = await sessions.listeners()
    await sessions.sessions([])
    assert (await sessions.ask("alice")).who == TARGET
    await sessions.sessions([sessions.claim("alice"), sessions.claim("gone")])
    assert (await sessions.ask("alice")).who == LAPTOP
    assert await sessions.listeners() == before


class TestBesideAUsersObjects:
    async def test_authorization_policies_of_every_kind(self, sessions):
        """Decision 7: their RBAC filters write into the same metadata, by keys of their own, and are judged first."""

        def policy(name, action, rule, **annotations):
            metadata = {"name": name, "annotations": annotations}
            spec = {**SELECTED, "action": action, "rules": [rule]}
            return {"apiVersion": SECURITY, "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}

        caller = {"source": {"principals": [f"cluster.local/ns/{sessions.namespace}/sa/caller"]}}
        dry = {"istio.io/dry-run": "true"}
        async with sessions.beside(
            policy("allow", "ALLOW", {"from": [caller], "to": [{"operation": {"methods": ["GET", "POST"]}}]}),
            policy("deny", "DENY", {"to": [{"operation": {"paths": ["/admin"]}}]}),
            policy("dry-deny", "DENY", {"to": [{"operation": {"methods": ["GET"]}}]}, **dry),
            policy("dry-allow", "ALLOW", {"to": [{"operation": {"methods": ["POST"]}}]}, **dry),
            policy("audit", "AUDIT", {}),
        ):

            async def held_back():
                answers = [await sessions.ask(env, url=f"http://{TARGET}/admin") for env in ("alice", "") * 5]
                return all(answer.status == 403 for answer in answers)

            await eventually(held_back, "policies hold, steered or not")
            assert [(await sessions.ask(env)).who for env in ("alice", "", "bob")] == [LAPTOP, TARGET, TARGET]
            assert (await sessions.ask("alice", method="POST")).who == LAPTOP
            assert (await sessions.ask("alice", method="PUT")).status == 403
        await sessions.answered_by(LAPTOP, "alice", url=f"http://{TARGET}/admin")

    @pytest.mark.parametrize("priority", [5, 30])
    async def test_another_filter_before_or_after_ours(self, sessions, priority):
        code = """
function envoy_on_request(handle)
  local alias = handle:headers():get("x-alias")
  if alias then handle:headers():replace("x-env", alias) end
  handle:clearRouteCache()
end
function envoy_on_response(handle) handle:headers():add("x-lua", "yes") end
"""
        manager = {"name": "envoy.filters.network.http_connection_manager"}
        manager["subFilter"] = {"name": "envoy.filters.http.router"}
        lua = {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}
        lua["defaultSourceCode"] = {"inlineString": code}
        listener = {"portNumber": HTTP, "filterChain": {"filter": manager}}
        other = {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": "users"},
            "spec": {
                "priority": priority,
                "workloadSelector": {"labels": {"app": TARGET}},
                "configPatches": [
                    {
                        "applyTo": "HTTP_FILTER",
                        "match": {"context": "SIDECAR_INBOUND", "listener": listener},
                        "patch": {"operation": "INSERT_BEFORE", "value": {"name": "users", "typedConfig": lua}},
                    }
                ],
            },
        }
        async with sessions.beside(other):

            async def there():
                return all([(await sessions.ask()).headers.get("x-lua") for _ in range(10)])

            await eventually(there, "the user's filter is in the sidecar")
            for env, who in (("alice", LAPTOP), ("", TARGET), ("gone", TARGET)):
                answer = await sessions.ask(env)
                assert (answer.who, answer.headers["x-lua"]) == (who, "yes")
                assert (await sessions.ask(env, method="POST")).who == who
            # What a filter after ours makes of the headers, ours has not seen.
            renamed = await sessions.ask(headers={"x-alias": "alice"})
            assert renamed.who == (LAPTOP if priority < 10 else TARGET)

        async def gone():
            return not any([(await sessions.ask()).headers.get("x-lua") for _ in range(10)])

        await eventually(gone, "the user's filter is out of the sidecar")

    async def test_a_virtual_services_timeout_and_retries_hold_for_a_request_at_a_breakpoint(self, sessions):
        """They are the caller's: it gives up when it would, and each retry is a request of its own to the process."""
        to = {"route": [{"destination": {"host": TARGET, "port": {"number": 80}}}]}
        retries = {"attempts": 2, "perTryTimeout": "500ms", "retryOn": "5xx"}
        impatient = {
            "apiVersion": NETWORKING,
            "kind": "VirtualService",
            "metadata": {"name": TARGET},
            "spec": {
                "hosts": [TARGET],
                "http": [
                    {"match": [{"headers": {"x-retry": {}}}], **to, "timeout": "5s", "retries": retries},
                    {**to, "timeout": "1s"},
                ],
            },
        }
        async with sessions.beside(impatient):

            async def in_force():
                return (await sessions.ask(url=f"http://{TARGET}/delay?ms=2000")).status == 504

            await eventually(in_force, "the caller's timeout holds")
            for headers, times in (({}, 1), ({"x-retry": "1"}, 3)):
                key = f"held-{times}"
                url = f"http://{TARGET}/hold?key={key}"
                answer = await sessions.ask("alice", url=url, headers={**headers, "x-request-key": key})
                assert answer.status == 504
                for env, expected in (("alice", times), ("", 0)):
                    found = await sessions.ask(env, url=f"http://{TARGET}/count?key={key}")
                    assert found.json["count"] == expected

    async def test_a_sidecar_resource_that_hides_the_agent_has_everything_answered_by_the_application(self, sessions):
        hosts = ["./caller.*", "istio-system/*"]
        hiding = {
            "apiVersion": NETWORKING,
            "kind": "Sidecar",
            "metadata": {"name": "hiding"},
            "spec": {"workloadSelector": {"labels": {"app": TARGET}}, "egress": [{"hosts": hosts}]},
        }
        async with sessions.beside(hiding):
            await sessions.answered_by(TARGET, "alice")
            assert (await sessions.ask("alice", method="POST")).who == TARGET
        await sessions.answered_by(LAPTOP, "alice")

    async def test_callers_without_a_sidecar_where_they_are_let_in(self, sessions):
        place, url = sessions.cluster.outside, f"http://{sessions.target.ip}:{HTTP}/"
        with pytest.raises(aiohttp.ClientError):
            await sessions.ask(pod=place, url=url)
        permissive = {
            "apiVersion": SECURITY,
            "kind": "PeerAuthentication",
            "metadata": {"name": "permissive"},
            "spec": {**SELECTED, "mtls": {"mode": "PERMISSIVE"}},
        }
        async with sessions.beside(permissive):
            await sessions.answered_by(TARGET, pod=place, url=url)
            assert (await sessions.ask("alice", pod=place, url=url)).who == LAPTOP
            assert (await sessions.ask("alice", pod=place, url=url, method="POST")).who == LAPTOP
            assert (await sessions.ask("alice")).who == LAPTOP

            # A port of which Istio is not told what it speaks: the same filters are in the chain for plain HTTP.
            untold = {
                "spec": {"ports": [{"name": "web", "port": 80, "targetPort": HTTP}, {"name": "grpc", "port": GRPC}]}
            }
            await sessions.cluster.client.patch("Service", TARGET, untold, namespace=sessions.namespace)
            await eventually(lambda: _sniffs(sessions), "the port's protocol is found out")
            await sessions.answered_by(TARGET, pod=place, url=url)
            await sessions.answered_by(LAPTOP, "alice", pod=place, url=url)
            told = {
                "spec": {"ports": [{"name": "http", "port": 80, "targetPort": HTTP}, {"name": "grpc", "port": GRPC}]}
            }
            await sessions.cluster.client.patch("Service", TARGET, told, namespace=sessions.namespace)

            async def told_again():
                return not await _sniffs(sessions)

            # Not a request before: the caller would keep a connection to the chain for bytes until that is drained.
            await eventually(told_again, "the port's protocol is told")
            await sessions.answered_by(LAPTOP, "alice")


async def _sniffs(mesh):
    """Whether the target's sidecar has a chain for what it finds to be plain HTTP."""
    found = json.loads(await mesh.target.envoy("/config_dump?resource=dynamic_listeners"))["configs"]
    [inbound] = [listener["active_state"]["listener"] for listener in found if listener["name"] == "virtualInbound"]
    matches = [chain.get("filter_chain_match", {}) for chain in inbound["filter_chains"]]
    mine = [match for match in matches if match.get("destination_port") == HTTP]
    return any("h2c" in match.get("application_protocols", []) for match in mine)


async def test_without_an_agent_in_the_endpoints_everything_is_the_application_s(sessions):
    """And back, with nothing written by us."""
    scale = {"spec": {"replicas": 0}}
    await sessions.cluster.client.patch("Deployment", "hairpin-agent", scale, namespace=sessions.namespace)
    await sessions.answered_by(TARGET, "alice")
    assert (await sessions.ask("alice", method="POST")).who == TARGET
    scale = {"spec": {"replicas": 1}}
    await sessions.cluster.client.patch("Deployment", "hairpin-agent", scale, namespace=sessions.namespace)
    await sessions.cluster.rolled_out("Deployment", "hairpin-agent", sessions.namespace)
    await sessions.answered_by(LAPTOP, "alice")


async def test_taken_out_the_plumbing_leaves_no_word_in_the_sidecar(sessions):
    """The last of this module. Requests that no session claims are answered throughout."""
    answers = []
    done = asyncio.Event()

    async def keep_asking():
        while not done.is_set():
            answers.append(await sessions.ask("bob"))

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_asking())
        for port in (HTTP, GRPC):
            for name in (plumbing_name("deployment", TARGET, port), f"hairpin-sessions-deployment-{TARGET}-{port}"):
                await sessions.cluster.client.delete("EnvoyFilter", name, sessions.namespace)

        async def gone():
            dump = await sessions.target.envoy("/config_dump?resource=dynamic_listeners")
            clusters = await sessions.target.envoy("/config_dump?resource=dynamic_active_clusters")
            return "hairpin.match" not in dump and "hairpin|" not in clusters

        await eventually(gone, "nothing of hairpin's is in the sidecar")
        await sessions.answered_by(TARGET, "alice")
        done.set()
    assert {(answer.status, answer.who) for answer in answers} == {(200, TARGET)}
